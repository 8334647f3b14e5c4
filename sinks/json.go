package sinks

import "github.com/rowcall/rowcall/listeners"

func appendJSONString(dst []byte, s string) []byte { return listeners.AppendJSONString(dst, s) }
