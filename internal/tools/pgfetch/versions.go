package main

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
)

// packages are the newest of each major version of PostgreSQL.
var packages = map[int]string{
	14: "14.23.0-beta.17",
	15: "15.18.0-beta.17",
	16: "16.14.0-beta.17",
	17: "17.10.0-beta.17",
	18: "18.4.0-beta.17",
}

// platforms are the packages' own names of the systems that they are built for.
var platforms = map[string]string{
	"linux/amd64":  "linux-x64",
	"linux/arm64":  "linux-arm64",
	"darwin/amd64": "darwin-x64",
	"darwin/arm64": "darwin-arm64",
}

// spec returns what npm calls the package of a major version on this machine.
func spec(major int) (string, error) {
	version, ok := packages[major]
	if !ok {
		var known []string
		for _, m := range slices.Sorted(maps.Keys(packages)) {
			known = append(known, fmt.Sprint(m))
		}
		return "", fmt.Errorf("there is no package of PostgreSQL %d; there are %s", major, strings.Join(known, ", "))
	}
	here := runtime.GOOS + "/" + runtime.GOARCH
	platform, ok := platforms[here]
	if !ok {
		return "", fmt.Errorf("there is no package of PostgreSQL for %s", here)
	}
	return "@embedded-postgres/" + platform + "@" + version, nil
}
