package cdc

// pluginOptions are what pgoutput is asked for, name and value, over either
// interface: the decoder reads what the two of them bring. Values are not
// quoted for SQL yet.
func pluginOptions(publication string) [][2]string {
	return [][2]string{
		{"proto_version", "1"},
		{"publication_names", quote(publication)},
	}
}
