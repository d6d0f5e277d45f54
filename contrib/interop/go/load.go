package main

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
)

const workers = 8

// load makes COUNT unary calls, retries off, and prints "tick" after each tenth of them, for the server to be replaced.
func load(addr, count string) int {
	total, err := strconv.Atoi(count)
	if err != nil {
		fmt.Println("load:", err)
		return 2
	}
	conn, err := dial(addr)
	if err != nil {
		fmt.Println("load:", err)
		return 1
	}
	var next, lost atomic.Int64
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for {
				number := next.Add(1)
				if number > int64(total) {
					return
				}
				if number%int64(total/10) == 0 {
					fmt.Println("tick")
				}
				if _, err := invoke(conn, unary, []byte("load")); err != nil && lost.Add(1) == 1 {
					fmt.Println("first loss:", err)
				}
			}
		})
	}
	group.Wait()
	if lost.Load() > 0 {
		fmt.Printf("load: %d of %d lost\n", lost.Load(), total)
		return 1
	}
	fmt.Println("load: ok")
	return 0
}
