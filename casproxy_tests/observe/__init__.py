"""What an operator sees: each promise of docs/how-to/observe.md, held against real counterparts where there are any."""
