package grid

import (
	"database/sql/driver"
	"encoding"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// A stepWalk lists the steps of a type's encoding.
type stepWalk struct {
	own   keyCodecs
	steps []keyStep
	mute  bool // two keys might have the same JSON, or none
}

func (w *stepWalk) walk(t reflect.Type, offset uintptr) error {
	if len(w.steps) > maxSteps {
		return nil // the codec says so
	}
	if c := w.own.find(t); c != nil {
		w.steps = append(w.steps, keyStep{kind: reflect.Func, offset: offset, codec: c})
		w.mute = w.mute || !speaks(t)
		return nil
	}
	switch t.Kind() { //nolint:exhaustive // the others cannot be part of a key
	case reflect.String, reflect.Bool,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		w.steps = append(w.steps, keyStep{kind: t.Kind(), offset: offset})
		return nil
	case reflect.Array:
		return w.array(t, offset)
	case reflect.Struct:
		if t == reflect.TypeFor[time.Time]() {
			w.steps = append(w.steps, keyStep{kind: reflect.Struct, offset: offset})
			return nil
		}
		return w.fields(t, offset)
	}
	return fmt.Errorf("%s is none of what keys are: %s", t, keyTypes)
}

func (w *stepWalk) array(t reflect.Type, offset uintptr) error {
	switch {
	case t.Len() == 0:
		return fmt.Errorf("%s has no elements", t)
	case isByteArray(t) && w.own.find(t.Elem()) == nil:
		w.steps = append(w.steps, keyStep{kind: reflect.Array, offset: offset, size: t.Size()})
		return nil
	}
	for i := range min(t.Len(), maxSteps+1) {
		if err := w.walk(t.Elem(), offset+uintptr(i)*t.Elem().Size()); err != nil {
			return err
		}
	}
	return nil
}

// fields walks a struct within a column. All of it has to show in its JSON, or
// the column's text is its encoding.
func (w *stepWalk) fields(t reflect.Type, offset uintptr) error {
	switch {
	case implements[driver.Valuer](t):
		return fmt.Errorf("%s says what it is to a database: give it a codec in Options.Keys", t)
	case t.NumField() == 0:
		return fmt.Errorf("%s has no fields", t)
	}
	names := make(map[string]struct{})
	for f := range t.Fields() {
		if !f.IsExported() {
			return fmt.Errorf("%s has the field %s, which is not exported; every field of a key takes part; give the type a codec in Options.Keys", t, f.Name)
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			name = f.Name
		}
		names[strings.ToLower(name)] = struct{}{}
		w.mute = w.mute || f.Anonymous || f.Tag.Get("json") == "-"
		if err := w.walk(f.Type, offset+f.Offset); err != nil {
			return fmt.Errorf("%s, field %s: %w", t, f.Name, err)
		}
	}
	w.mute = w.mute || len(names) < t.NumField()
	return nil
}

// speaks reports whether the text of a type tells its values from each other.
func speaks(t reflect.Type) bool {
	switch t.Kind() { //nolint:exhaustive // the others have parts
	case reflect.Struct, reflect.Array, reflect.Interface, reflect.Pointer, reflect.Chan:
		return implements[encoding.TextMarshaler](t) || isByteArray(t)
	}
	return true
}

func isByteArray(t reflect.Type) bool {
	return t.Kind() == reflect.Array && t.Elem().Kind() == reflect.Uint8
}
