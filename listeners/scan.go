package listeners

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// Scan stores the record's columns into the fields of the struct that dst
// points to. The tag `db:"name"` names a field's column, `db:"-"` leaves the
// field out, and `db:"name,optional"` allows the column to be missing. An
// untagged exported field takes the column of its name in snake_case, if there
// is one. Embedded structs count as their fields.
//
// Unchanged columns leave their fields as they are, so scanning onto the old
// value fills them in. A NULL needs a field that can be nil, or a
// [database/sql.Scanner]. Nothing stored shares memory with the old value.
// Scan returns an error that names the column, the field and the remedy.
func (r Record) Scan(dst any) error {
	if r.row == nil {
		return fmt.Errorf("listeners: scan of an absent record into %T", dst)
	}
	v := reflect.ValueOf(dst)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("listeners: scan into %T: want a non-nil pointer to a struct", dst)
	}
	v = v.Elem()
	schema := r.row.Schema()
	plan, err := schema.plan(v.Type())
	if err != nil {
		return err
	}
	for _, f := range plan.fields {
		if r.row.State(f.column) == Unchanged {
			continue
		}
		field := v.Field(f.index[0])
		for _, i := range f.index[1:] {
			field = field.Field(i)
		}
		if err := r.row.Scan(f.column, field.Addr().Interface()); err != nil {
			return fmt.Errorf("listeners: column %s.%s into %s.%s: %w",
				schema.Collection(), schema.Columns[f.column].Name, v.Type(), f.name, err)
		}
	}
	return nil
}

// A scanPlan pairs the columns of a schema with the fields of a struct type.
type scanPlan struct{ fields []scanField }

type scanField struct {
	column int
	index  []int // as for reflect.Value.FieldByIndex; no pointers on the way
	name   string
}

func (s *Schema) plan(t reflect.Type) (*scanPlan, error) {
	if cached, ok := s.plans.Load(t); ok {
		if err, bad := cached.(error); bad {
			return nil, err
		}
		return cached.(*scanPlan), nil //nolint:forcetypeassert,errcheck // only the two are stored
	}
	plan := new(scanPlan)
	if err := plan.add(s, t, nil); err != nil {
		s.plans.Store(t, err)
		return nil, err
	}
	s.plans.Store(t, plan)
	return plan, nil
}

func (p *scanPlan) add(s *Schema, t reflect.Type, prefix []int) error {
	for f := range t.Fields() {
		index := append(slices.Clone(prefix), f.Index...)
		tag, tagged := f.Tag.Lookup("db")
		column, option, _ := strings.Cut(tag, ",")
		switch {
		case column == "-":
			continue
		case f.Anonymous && !tagged && f.Type.Kind() == reflect.Struct:
			if err := p.add(s, f.Type, index); err != nil {
				return err
			}
			continue
		case !f.IsExported():
			if tagged {
				return fmt.Errorf("listeners: %s.%s has a db tag but is not exported", t, f.Name)
			}
			continue
		case option != "" && option != "optional":
			return fmt.Errorf("listeners: %s.%s: unknown option %q in its db tag; only \"optional\" is known", t, f.Name, option)
		}
		if column == "" {
			column = ColumnName(f.Name)
		}
		i := s.Index(column)
		if i < 0 {
			if tagged && option != "optional" {
				return fmt.Errorf("listeners: %s.%s wants column %q, which %s does not have (it has %s); rename it or add \",optional\" to the tag",
					t, f.Name, column, s.Collection(), s.columnList())
			}
			continue
		}
		p.fields = append(p.fields, scanField{column: i, index: index, name: f.Name})
	}
	return nil
}

func (s *Schema) columnList() string {
	names := make([]string, len(s.Columns))
	for i, c := range s.Columns {
		names[i] = c.Name
	}
	return strings.Join(names, ", ")
}

// missing returns the names of the columns that t has fields for and r does
// not hold.
func (r Record) missing(t reflect.Type) []string {
	if t.Kind() != reflect.Struct {
		return nil // a region's value, which is whole
	}
	plan, err := r.row.Schema().plan(t)
	if err != nil {
		return nil
	}
	var names []string
	for _, f := range plan.fields {
		if r.row.State(f.column) == Unchanged {
			names = append(names, r.row.Schema().Columns[f.column].Name)
		}
	}
	return names
}

// ColumnName returns the column that a struct's field stands for if it has no
// db tag: SeatNo is seat_no, and HTTPPort is http_port. See [Record.Scan].
func ColumnName(field string) string {
	runes := []rune(field)
	var b strings.Builder
	for i, c := range runes {
		if unicode.IsUpper(c) && i > 0 &&
			(!unicode.IsUpper(runes[i-1]) || (i+1 < len(runes) && unicode.IsLower(runes[i+1]))) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}
