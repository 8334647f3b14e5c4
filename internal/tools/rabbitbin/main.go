package main

import (
	"fmt"
	"os"

	"github.com/rowcall/rowcall/internal/rabbitserver"
)

func main() {
	dir, err := rabbitserver.Find()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(dir)
}
