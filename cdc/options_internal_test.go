package cdc

import (
	"strings"
	"testing"
	"time"
)

func TestNewConfigDefaults(t *testing.T) {
	c, err := newConfig("postgres://app:hunter2@localhost/Train-Shop", nil)
	if err != nil {
		t.Fatalf("newConfig(nil) = %v", err)
	}
	for _, tc := range []struct {
		field     string
		got, want any
	}{
		{"database", c.database, "Train-Shop"},
		{"Slot", c.Slot, "rowcall_train_shop"},
		{"Publication", c.Publication, "rowcall_train_shop"},
		{"Snapshot", c.Snapshot, SnapshotInitial},
		{"MaxBatchBytes", c.MaxBatchBytes, 4 << 20},
		{"SlotWait", c.SlotWait, 5 * time.Second},
		{"StopTimeout", c.StopTimeout, 15 * time.Second},
		{"timezone", c.conn.RuntimeParams["timezone"], "UTC"},
		{"datestyle", c.conn.RuntimeParams["datestyle"], "ISO, MDY"},
		{"intervalstyle", c.conn.RuntimeParams["intervalstyle"], "postgres"},
		{"bytea_output", c.conn.RuntimeParams["bytea_output"], "hex"},
	} {
		if tc.got != tc.want {
			t.Errorf("newConfig(nil) has %s %v, want %v", tc.field, tc.got, tc.want)
		}
	}
	if c.Logger == nil {
		t.Error("newConfig(nil) has no logger, want one that discards")
	}
}

func TestNewConfigPinsOverTheURL(t *testing.T) {
	c, err := newConfig("postgres://app@localhost/shop?timezone=Asia/Tokyo&datestyle=German&bytea_output=escape", nil)
	if err != nil {
		t.Fatalf("newConfig = %v", err)
	}
	for param, want := range map[string]string{"timezone": "UTC", "datestyle": "ISO, MDY", "bytea_output": "hex"} {
		if got := c.conn.RuntimeParams[param]; got != want {
			t.Errorf("newConfig(URL with another %s) sends %q, want %q", param, got, want)
		}
	}
}

func TestNewConfigKeepsTheCallersOptions(t *testing.T) {
	opts := &Options{Slot: "s", Tables: []string{"shop.*", `"a.b"`}, Snapshot: SnapshotNever, SlotWait: time.Second}
	c, err := newConfig("postgres://app@localhost/shop", opts)
	if err != nil {
		t.Fatalf("newConfig(%+v) = %v", opts, err)
	}
	if c.Slot != "s" || c.Publication != "s" || c.Snapshot != SnapshotNever || c.SlotWait != time.Second {
		t.Errorf("newConfig(%+v) = %+v, want what was given, and the slot's name for the publication", opts, c.Options)
	}
	want := []pattern{{schema: "shop", table: "*", all: true}, {schema: "public", table: "a.b"}}
	if len(c.patterns) != 2 || c.patterns[0] != want[0] || c.patterns[1] != want[1] {
		t.Errorf("newConfig(%q) has patterns %v, want %v", opts.Tables, c.patterns, want)
	}
	if opts.Publication != "" || opts.Logger != nil || opts.MaxBatchBytes != 0 {
		t.Errorf("newConfig has changed the caller's options: %+v", opts)
	}
}

func TestNewConfigReportsEveryFaultAtOnce(t *testing.T) {
	_, err := newConfig("postgres://app:hunter2@localhost/shop", &Options{
		Slot:        "Has Capitals",
		Publication: strings.Repeat("p", 64),
		Snapshot:    "sometimes",
		Tables:      []string{"fine", "a.b.c", `"open`},
	})
	if err == nil {
		t.Fatal("newConfig(five faults) = nil, want an error")
	}
	for _, want := range []string{
		`slot "Has Capitals"`, `publication "ppp`, `snapshot "sometimes": want initial, never or only`,
		`table "a.b.c"`, `table "\"open"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("newConfig(five faults) = %v; want %s in it", err, want)
		}
	}
	if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "fine") {
		t.Errorf("newConfig(five faults) = %v; want neither the password nor what is right", err)
	}
}

func TestNewConfigHidesThePassword(t *testing.T) {
	for _, u := range []string{
		"postgres://app:hunter2@localhost:port/shop",
		"postgres://app:hunter2@localhost/shop?sslmode=perhaps",
		"host=localhost password=hunter2 port=many",
		"postgres://app:hunter2@[::1/shop",
		"postgres://app:hunter2@localhost/shop?connect_timeout=soon",
		"host=localhost password = hunter2 sslmode=perhaps",
		`host=localhost password=a\ hunter2 sslmode=perhaps`,
		"host=localhost password='a hunter2 port=5432",
		"postgres://app:p@hunter2@localhost/shop",
		"postgres://app:p@hunter2@one,two/shop",
		"postgres://app@one,p@hunter2/shop",
		"postgres://app:p@hunter2:7@localhost/shop",
		"app hunter2",
		"postgres://app:p@localhost/hunter2@localhost/shop",
		"postgres://app:p@localhost?hunter2@localhost/shop",
	} {
		_, err := newConfig(u, nil)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("newConfig(%s) = %v; want an error without the password", u, err)
		}
	}
}

func TestDefaultSlot(t *testing.T) {
	for in, want := range map[string]string{
		"shop":                   "rowcall_shop",
		"Train Shop-2":           "rowcall_train_shop_2",
		"läden":                  "rowcall_l_den",
		"":                       "rowcall_",
		strings.Repeat("d", 63):  "rowcall_" + strings.Repeat("d", 55),
		strings.Repeat("ä", 31):  "rowcall_" + strings.Repeat("_", 31),
		strings.Repeat("9_", 30): "rowcall_" + strings.Repeat("9_", 27) + "9",
	} {
		got := defaultSlot(in)
		if got != want || !slotName.MatchString(got) {
			t.Errorf("defaultSlot(%q) = %q, want %q, a legal name", in, got, want)
		}
	}
}
