package main

import (
	"context"
	"fmt"
	"os"
)

func Example() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Println(err)
	}
	// Output:
	// The best three:
	//   1. bob   950 (blue)
	//   2. dan   820 (blue)
	//   3. ada   700 (red)
	// Team red begins with 3 players and 1100 points.
	// The game:
	//   bob enters the league with 1020
	//   bob goes from 1020 to 1100
	//   ada enters the league with 1300
	//   bob leaves the league with 990
	// Team red ends with 3 players and 2180 points.
	// The best three:
	//   1. ada  1300 (red)
	//   2. bob   990 (blue)
	//   3. dan   820 (red)
}
