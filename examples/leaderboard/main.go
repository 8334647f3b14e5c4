// Command leaderboard shows an index and continuous queries on an in-memory
// region. It needs no server:
//
//	go run ./examples/leaderboard
//
// A region holds the players of a game. An index orders them by score, so the
// best three are read from its end, and nothing else is. One query hears who
// comes to 1,000 points, one for each team hears what that team does; none of
// them looks at what does not concern it.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

// A Player is the value of one entry; the key is the name.
type Player struct {
	Team  string
	Score int
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	game := grid.New("game", nil)
	players, err := grid.Open[string, Player](game, "players", nil)
	if err != nil {
		return err
	}
	byScore, err := grid.NewIndex(players, "score", func(_ string, p Player) (int, bool) { return p.Score, p.Score > 0 }, nil)
	if err != nil {
		return err
	}
	byTeam, err := grid.NewIndex(players, "team", func(_ string, p Player) (string, bool) { return p.Team, true }, nil)
	if err != nil {
		return err
	}
	for name, p := range map[string]Player{
		"ada": {"red", 700}, "bob": {"blue", 950}, "cleo": {"red", 400}, "dan": {"blue", 820}, "eve": {"red", 0},
	} {
		if _, err := players.Put(ctx, name, p); err != nil {
			return err
		}
	}
	fmt.Fprintln(out, "The best three:")
	printBest(out, byScore, 3)

	// By a function: who is in the league, and from when to when.
	league, err := grid.NewQuery(players, "league", func(_ string, p Player) bool { return p.Score >= 1000 }, nil)
	if err != nil {
		return err
	}
	promotions, err := league.Subscribe("herald", herald(out), nil)
	if err != nil {
		return err
	}
	// By an index value: there could be thousands of these, and a change would
	// still cost one look-up.
	red, err := byTeam.Query("team red", "red", nil)
	if err != nil {
		return err
	}
	sum := &total{live: make(chan struct{})}
	team, err := red.Subscribe("coach", sum, &listeners.SubscribeOptions{Current: true})
	if err != nil {
		return err
	}
	<-sum.live
	fmt.Fprintf(out, "Team red begins with %d players and %d points.\n", red.Len(), sum.points)

	fmt.Fprintln(out, "The game:")
	steps := []struct {
		name string
		Player
	}{
		{"bob", Player{"blue", 1020}},  // enters the league
		{"eve", Player{"red", 60}},     // scores for red
		{"bob", Player{"blue", 1100}},  // stays in the league
		{"dan", Player{"red", 820}},    // changes to red
		{"ada", Player{"red", 1300}},   // enters the league
		{"bob", Player{"blue", 990}},   // a penalty: leaves it
		{"cleo", Player{"green", 400}}, // leaves red
	}
	var last listeners.Position
	for _, s := range steps {
		if last, err = players.Put(ctx, s.name, s.Player); err != nil {
			return err
		}
	}
	// Listeners run after Put has returned. Wait says when they have come to
	// this point, also those whom the last change did not concern.
	for _, sub := range []*listeners.Subscription{promotions, team} {
		if err := sub.Wait(ctx, last); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "Team red ends with %d players and %d points.\n", red.Len(), sum.points)
	fmt.Fprintln(out, "The best three:")
	printBest(out, byScore, 3)
	return game.Close(ctx)
}

func printBest(out io.Writer, byScore *grid.Index[string, Player, int], most int) {
	place := 0
	for name, p := range byScore.Backward() {
		place++
		fmt.Fprintf(out, "  %d. %-4s %4d (%s)\n", place, name, p.Score, p.Team)
		if place == most {
			return
		}
	}
}

// herald returns a listener of the league. Enter, change and leave are create,
// update and delete, since to it the query is all there is.
func herald(out io.Writer) listeners.Listener {
	return listeners.Handlers[Player]{
		OnCreate: func(_ context.Context, c listeners.Change[Player]) error {
			fmt.Fprintf(out, "  %s enters the league with %d\n", c.Key, c.After.Score)
			return nil
		},
		OnUpdate: func(_ context.Context, c listeners.Change[Player]) error {
			fmt.Fprintf(out, "  %s goes from %d to %d\n", c.Key, c.Before.Score, c.After.Score)
			return nil
		},
		OnDelete: func(_ context.Context, c listeners.Change[Player]) error {
			fmt.Fprintf(out, "  %s leaves the league with %d\n", c.Key, c.After.Score)
			return nil
		},
	}
}

// A total is a listener that keeps a team's points. It begins with the players
// that are there and adds up what changes, so it is exact without ever reading
// the region. Its fields are its goroutine's, and of who has waited for that.
type total struct {
	points int
	live   chan struct{}
}

func (t *total) OnBatch(ctx context.Context, b *listeners.Batch) error {
	add := func(_ context.Context, c listeners.Change[Player]) error {
		t.points += c.After.Score
		return nil
	}
	return listeners.Handlers[Player]{
		OnReset:  func(context.Context) error { t.points = 0; return nil },
		OnRead:   add,
		OnLive:   func(context.Context) error { close(t.live); return nil },
		OnCreate: add,
		OnUpdate: func(_ context.Context, c listeners.Change[Player]) error {
			t.points += c.After.Score - c.Before.Score
			return nil
		},
		OnDelete: func(_ context.Context, c listeners.Change[Player]) error {
			t.points -= c.Before.Score
			return nil
		},
		OnTruncate: func(context.Context, string) error { t.points = 0; return nil },
	}.OnBatch(ctx, b)
}
