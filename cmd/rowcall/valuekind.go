package main

import "github.com/spf13/pflag"

// A valueKind is what a setting takes in a file.
type valueKind int

const (
	valueText valueKind = iota
	valueList           // of texts, or one text
	valueNumber
	valueSize
	valueDuration
	valueBool
	valueChoice
)

// kindOf returns what a flag's value takes.
func kindOf(v pflag.Value) valueKind {
	switch v.(type) {
	case *tableList, *prefixList, *outboxList:
		return valueList
	case *byteSize:
		return valueSize
	case *choice:
		return valueChoice
	}
	switch v.Type() {
	case "bool":
		return valueBool
	case "int", "uint", "uint64":
		return valueNumber
	case "duration":
		return valueDuration
	}
	return valueText
}

func (k valueKind) list() bool { return k == valueList }

// takes reports whether a node of a kind can be one. What variables are in is a
// text, and can be anything.
func (k valueKind) takes(n nodeKind) bool {
	switch k {
	case valueNumber:
		return n == nodeNumber
	case valueBool:
		return n == nodeBool
	case valueSize:
		return n == nodeNumber || n == nodeText
	case valueText, valueList, valueDuration, valueChoice:
	}
	return n == nodeText
}

// wants says what it takes.
func (k valueKind) wants() string {
	switch k {
	case valueText, valueChoice:
		return "a text"
	case valueList:
		return "a list of texts, or one text"
	case valueNumber:
		return "a number"
	case valueSize:
		return "a size such as 10GB or 512MiB"
	case valueDuration:
		return "a duration such as 90s or 720h"
	case valueBool:
		return "true or false"
	}
	return "a text"
}
