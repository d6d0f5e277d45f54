// Command peer is grpc-go, unmodified, as the other end of an interoperability test.
//
//	peer client ADDR                  runs the test methods against a server, one line per check
//	peer bytestream ADDR UP DOWN      stores and fetches artifacts as Chainloop's client does: gob names, tokens UP and DOWN
//	peer load ADDR COUNT              makes COUNT calls, retries off, while the server is replaced
//	peer server                       serves the test methods; prints its port; ends when its standard input does
//
// A line is "name: ok" or "name: what went wrong". The exit code is 0 only when every check was ok.
package main

import (
	"fmt"
	"os"
)

type check struct {
	name string
	run  func() error
}

func runAll(checks []check) int {
	failed := 0
	for _, one := range checks {
		if err := one.run(); err != nil {
			fmt.Printf("%s: %v\n", one.name, err)
			failed = 1
		} else {
			fmt.Printf("%s: ok\n", one.name)
		}
	}
	return failed
}

func main() {
	args := os.Args[1:]
	switch {
	case len(args) == 2 && args[0] == "client":
		os.Exit(runAll(clientChecks(args[1])))
	case len(args) == 4 && args[0] == "bytestream":
		os.Exit(runAll(byteStreamChecks(args[1], args[2], args[3])))
	case len(args) == 3 && args[0] == "load":
		os.Exit(load(args[1], args[2]))
	case len(args) == 1 && args[0] == "server":
		os.Exit(serve())
	}
	fmt.Fprintln(os.Stderr, "usage: peer client ADDR | bytestream ADDR UP DOWN | load ADDR COUNT | server")
	os.Exit(2)
}
