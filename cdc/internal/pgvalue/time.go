package pgvalue

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"time"
)

var (
	errTime     = errors.New("malformed date or time")
	errInfinity = errors.New("time.Time has no infinity, use string or a type that has one, such as pgtype.Timestamptz")
	errInterval = errors.New("malformed interval")
	errMonths   = errors.New("months have no fixed length, use string")
	errDuration = errors.New("value out of range of time.Duration, use string")
)

// parseTime reads "date[ time[offset]][ BC]", the ISO style of date, timestamp
// and timestamptz, as a time in UTC.
func parseTime(text []byte) (time.Time, error) {
	if isInfinity(text) {
		return time.Time{}, errInfinity
	}
	text, bc := bytes.CutSuffix(text, []byte(" BC"))
	p := timeParser{rest: text}
	year := p.number(4, 7)
	month := p.field('-')
	day := p.field('-')
	var hour, minute, second, nano, offset int
	if p.more() {
		p.expect(' ')
		hour = p.number(2, 2)
		minute = p.field(':')
		second = p.field(':')
		nano = p.fraction()
		offset = p.offset()
	}
	if p.failed || p.more() || month < 1 || month > 12 || day < 1 || day > 31 ||
		hour > 24 || minute > 59 || second > 60 {
		return time.Time{}, errTime
	}
	if bc {
		// 1 BC is the year 0 of ISO 8601 and of package time.
		year = 1 - year
	}
	return time.Date(year, time.Month(month), day, hour, minute, second-offset, nano, time.UTC), nil
}

func isInfinity(text []byte) bool {
	return string(text) == "infinity" || string(text) == "-infinity"
}

// timeParser takes fields off the front of rest. After a failure the fields it
// returns mean nothing.
type timeParser struct {
	rest   []byte
	failed bool
}

func (p *timeParser) more() bool { return len(p.rest) > 0 }

func (p *timeParser) expect(c byte) {
	if !p.accept(c) {
		p.failed = true
	}
}

func (p *timeParser) accept(c byte) bool {
	if len(p.rest) == 0 || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// number takes between least and most digits, all that there are.
func (p *timeParser) number(least, most int) int {
	n := digits(p.rest)
	if n < least || n > most {
		p.failed = true
		return 0
	}
	v := 0
	for _, c := range p.rest[:n] {
		v = 10*v + int(c-'0')
	}
	p.rest = p.rest[n:]
	return v
}

// field takes a separator and two digits.
func (p *timeParser) field(separator byte) int {
	p.expect(separator)
	return p.number(2, 2)
}

// fraction takes the decimals of a second, if there are any, as nanoseconds.
func (p *timeParser) fraction() int {
	if !p.accept('.') {
		return 0
	}
	n := digits(p.rest)
	v := p.number(1, 9)
	for ; n < 9; n++ {
		v *= 10
	}
	return v
}

// offset takes an offset from UTC, if there is one, as seconds.
func (p *timeParser) offset() int {
	sign := 1
	switch {
	case p.accept('+'):
	case p.accept('-'):
		sign = -1
	default:
		return 0
	}
	v := 3600 * p.number(2, 2)
	for unit := 60; unit > 0 && p.accept(':'); unit /= 60 {
		v += unit * p.number(2, 2)
	}
	return sign * v
}

// parseInterval reads an interval in the style "postgres". A day counts as 24
// hours, which is what it is in UTC; a month has no length.
func parseInterval(text []byte) (time.Duration, error) {
	if isInfinity(text) {
		return 0, errDuration
	}
	var seconds, nanos int64
	for len(text) > 0 {
		var word, unit []byte
		word, text, _ = bytes.Cut(text, []byte(" "))
		if bytes.IndexByte(word, ':') >= 0 {
			s, n, ok := parseClock(word)
			if !ok || len(text) > 0 {
				return 0, errInterval
			}
			seconds, nanos = seconds+s, n
			break
		}
		n, err := strconv.ParseInt(string(word), 10, 32)
		unit, text, _ = bytes.Cut(text, []byte(" "))
		switch string(unit) {
		case "day", "days":
			seconds += n * 24 * 60 * 60
		case "year", "years", "mon", "mons":
			return 0, errMonths
		default:
			err = errInterval
		}
		if err != nil {
			return 0, errInterval
		}
	}
	const most = math.MaxInt64/int64(time.Second) - 1
	if seconds < -most || seconds > most {
		return 0, errDuration
	}
	return time.Duration(seconds)*time.Second + time.Duration(nanos), nil
}

// parseClock reads "[sign]hours:minutes:seconds[.fraction]", whose sign is that
// of all its parts.
func parseClock(text []byte) (seconds, nanos int64, ok bool) {
	p := timeParser{rest: text}
	sign := int64(1)
	if p.accept('-') {
		sign = -1
	} else {
		p.accept('+')
	}
	hours := p.number(2, 10)
	minutes := p.field(':')
	secs := p.field(':')
	nano := p.fraction()
	if p.failed || p.more() {
		return 0, 0, false
	}
	return sign * (int64(hours)*3600 + int64(minutes)*60 + int64(secs)), sign * int64(nano), true
}
