package listeners

// overlay returns a newer record whose unchanged columns are those of an older
// one of the same row.
func overlay(older, newer Record) Record {
	if older.row == nil || newer.row == nil {
		return newer
	}
	schema := newer.row.Schema()
	incomplete := false
	for i := range schema.Columns {
		if newer.row.State(i) == Unchanged {
			incomplete = true
			break
		}
	}
	if !incomplete {
		return newer
	}
	o := &overlaid{schema: schema, values: make([]Value, len(schema.Columns))}
	for i := range schema.Columns {
		c := &schema.Columns[i]
		from, at := newer.row, i
		if newer.row.State(i) == Unchanged {
			was := older.row.Schema()
			if j := was.Index(c.Name); j >= 0 && was.Columns[j].Type == c.Type && was.Columns[j].TypeID == c.TypeID {
				from, at = older.row, j
			}
		}
		if below, ok := from.(*overlaid); ok {
			// Rows of rows of rows would keep all of them in memory.
			o.values[i] = below.values[at]
			continue
		}
		o.values[i] = Value{row: from, i: at}
	}
	return Record{row: o}
}

// An overlaid is a [Row] whose columns come from several others, or from nowhere:
// then they are unchanged.
type overlaid struct {
	schema *Schema
	values []Value
}

func (o *overlaid) Schema() *Schema           { return o.schema }
func (o *overlaid) State(i int) State         { return o.values[i].State() }
func (o *overlaid) Text(i int) []byte         { return o.values[i].Bytes() }
func (o *overlaid) Scan(i int, dst any) error { return o.values[i].Scan(dst) }

func (o *overlaid) AppendJSON(dst []byte, i int) []byte {
	if o.State(i) != Present {
		return append(dst, "null"...)
	}
	return o.values[i].row.AppendJSON(dst, o.values[i].i)
}

// onlyKey returns a record with the key columns of another.
func onlyKey(r Record) Record {
	if r.row == nil {
		return r
	}
	schema := r.row.Schema()
	o := &overlaid{schema: schema, values: make([]Value, len(schema.Columns))}
	for _, i := range schema.Key() {
		o.values[i] = Value{row: r.row, i: i}
	}
	return Record{row: o}
}
