package pgvalue

import (
	"bytes"
	"fmt"
)

// scanSlice fills a slice whose elements are no slices.
func scanSlice[T any](t *Type, text []byte, dst *[]T) error {
	var s []T
	err := t.each(text, func(i, n int, it element) error {
		if i == 0 {
			s = make([]T, n)
		}
		if it.nested {
			return errDimensions
		}
		return t.scanElement(it, i, &s[i])
	})
	if err != nil {
		return err
	}
	if s == nil {
		s = []T{}
	}
	*dst = s
	return nil
}

// each calls f for every element of an array or a vector with its index and the
// number of elements; escapes are already removed. The text of the element is
// valid during the call only.
func (t *Type) each(text []byte, f func(i, n int, it element) error) error {
	switch t.kind {
	case kindArray:
	case kindVector:
		return t.eachOfVector(text, f)
	default:
		return errNoWay
	}
	n := 0
	for items, ok := elementsOf(text, t.delim); ; n++ {
		if !ok {
			return errMalformed
		}
		if items.done() {
			break
		}
		_, ok = items.next()
	}
	items, _ := elementsOf(text, t.delim)
	var buf []byte
	for i := range n {
		it, _ := items.next()
		if it.escaped {
			buf = unescape(buf[:0], it.text)
			it.text = buf
		}
		if err := f(i, n, it); err != nil {
			return err
		}
	}
	return nil
}

func (t *Type) eachOfVector(text []byte, f func(i, n int, it element) error) error {
	if len(text) == 0 {
		return nil
	}
	n := bytes.Count(text, []byte{t.delim}) + 1
	for i := range n {
		item, rest, _ := bytes.Cut(text, []byte{t.delim})
		if err := f(i, n, element{text: item}); err != nil {
			return err
		}
		text = rest
	}
	return nil
}

// scanElement stores an element, or a nested array, in the variable that dst
// points to.
func (t *Type) scanElement(it element, i int, dst any) error {
	if it.null {
		ok, err := storeNull(dst)
		if err == nil && !ok {
			err = fmt.Errorf("NULL, use []*%s or []sql.Null[%[1]s]", goType(dst))
		}
		if err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
		return nil
	}
	reader := t.elem
	if it.nested {
		reader = t
	}
	if err := reader.Scan(it.text, dst); err != nil {
		return fmt.Errorf("element %d: %w", i, err)
	}
	return nil
}
