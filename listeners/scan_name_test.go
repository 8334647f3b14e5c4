package listeners_test

import (
	"testing"

	"github.com/rowcall/rowcall/listeners"
)

func TestColumnName(t *testing.T) {
	for field, want := range map[string]string{
		"ID": "id", "Name": "name", "SeatNo": "seat_no", "HTTPPort": "http_port", "UserID": "user_id", "A": "a", "Größe": "größe", "": "",
	} {
		if got := listeners.ColumnName(field); got != want {
			t.Errorf("ColumnName(%q) = %q, want %q", field, got, want)
		}
	}
}
