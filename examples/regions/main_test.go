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
	// 12A is for sale for 40
	// 12B is for sale for 40
	// 12C is for sale for 40
	// 12B is sold
	// 12A costs 50, no longer 40
	// 12C costs 50, no longer 40
	// In the end:
	//   12A {Price:50 Sold:false}
	//   12B {Price:40 Sold:true}
	//   12C {Price:50 Sold:false}
}
