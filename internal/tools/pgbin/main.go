package main

import (
	"fmt"
	"os"

	"github.com/rowcall/rowcall/internal/pgserver"
)

func main() {
	dir, err := pgserver.Find()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(dir)
}
