package cdc_test

import (
	"context"
	"fmt"
	"log"

	"github.com/rowcall/rowcall/cdc"
)

func ExampleCheck() {
	findings, err := cdc.Check(context.Background(), "postgres://app@localhost/shop", &cdc.Options{Tables: []string{"seats"}})
	if err != nil {
		log.Fatal(err) // the URL or the options are faulty
	}
	for _, f := range findings {
		if f.Level >= cdc.Warning {
			fmt.Printf("%s: %s\n  %s\n", f.Level, f.Text, f.Remedy)
		}
	}
}
