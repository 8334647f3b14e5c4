package rabbitmq_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/internal/rabbitserver"
	"github.com/rowcall/rowcall/internal/rabbitserver/rabbittest"
	"github.com/rowcall/rowcall/sinks/rabbitmq"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

func TestCommands(t *testing.T) { sinktest.CommandsAtOnce(t, commandServer) }

// prefix returns one that this test has for itself; what begins with it is
// removed at the test's end.
func prefix(t testing.TB, s *rabbitserver.Server) string {
	t.Helper()
	p := "t" + rand.Text()[:8] + "."
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 3*time.Minute)
		defer cancel()
		if err := s.Resume(ctx); err != nil {
			t.Error(err)
			return
		}
		if t.Failed() {
			t.Logf("the end of the server's log:\n%s", s.LogTail(30))
		}
		removeQueues(t, s, p)
	})
	return p
}

// removeQueues keeps the node quick to restart. To delete a queue that does not
// exist is no error.
func removeQueues(t testing.TB, s *rabbitserver.Server, prefix string) {
	t.Helper()
	conn, err := amqp.Dial(s.URL())
	if err != nil {
		t.Logf("connect: %v", err)
		return
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Logf("channel: %v", err)
		return
	}
	names := []string{"all", "cmd.fleet", "dlq.fleet", "rowcall.commands"}
	for ms := int64(16); ms <= 268435456; ms *= 8 {
		names = append(names, fmt.Sprint("cmd.fleet.wait.", ms))
	}
	for _, name := range names {
		if _, err := ch.QueueDelete(prefix+name, false, false, false); err != nil {
			t.Logf("delete queue %s: %v", name, err)
			return
		}
	}
}

// inWork asks the server, which knows what AMQP does not tell. It looks more than
// once, as a message on its way between two queues may be in neither's count.
func inWork(s *rabbitserver.Server, prefix string) func(t testing.TB, queue string) error {
	return func(t testing.TB, queue string) error {
		list, err := s.Eval(t.Context(), `
			Total = fun(Server) -> % RabbitMQ 4 takes no fun
				try ra:leader_query(Server, fun rabbit_fifo:query_messages_total/1)
				catch error:function_clause -> ra:leader_query(Server, {rabbit_fifo, query_messages_total, []}) end end,
			Look = fun() -> lists:sum([N || Q <- rabbit_amqqueue:list(),
				{resource, _, queue, Name} <- [amqqueue:get_name(Q)], string:prefix(Name, "`+prefix+"cmd."+queue+`") =/= nomatch,
				{ok, {_, N}, _} <- [Total(amqqueue:get_pid(Q))]]) end,
			lists:max([begin timer:sleep(20), Look() end || _ <- lists:seq(1, 5)]).`)
		if err != nil {
			return err
		}
		if n := strings.Fields(list); len(n) == 0 || n[0] != "0" {
			return fmt.Errorf("%v messages are in queue %s", n, queue)
		}
		return nil
	}
}

func connector(t testing.TB, s *rabbitserver.Server, w *wire) *rabbitmq.Connector {
	t.Helper()
	c, err := rabbitmq.NewConnector(s.URL(), &rabbitmq.ConnectOptions{Dial: w.dial})
	if err != nil {
		t.Fatalf("NewConnector: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

func commandClient(t testing.TB, s *rabbitserver.Server, o rabbitmq.CommandOptions) *sinktest.CommandClient {
	t.Helper()
	w := new(wire)
	c := connector(t, s, w)
	b, err := rabbitmq.NewCommandBroker(c, &o)
	if err != nil {
		t.Fatalf("NewCommandBroker: %v", err)
	}
	return &sinktest.CommandClient{
		Broker: b, Cut: w.cut, LoseAcks: func(n int) { w.lose.Store(int64(n)) },
		Kill: func() {
			w.dead.Store(true)
			w.cut()
		},
	}
}

func commandServer(t testing.TB) sinktest.CommandServer {
	s := rabbittest.Server(t)
	p := prefix(t, s)
	return sinktest.CommandServer{
		Connect: func(t testing.TB) *sinktest.CommandClient {
			return commandClient(t, s, rabbitmq.CommandOptions{Prefix: p, ConfirmTimeout: 2 * time.Second})
		},
		Calm: func(t testing.TB) *sinktest.CommandClient {
			return commandClient(t, s, rabbitmq.CommandOptions{Prefix: p, ConfirmTimeout: 30 * time.Second})
		},
		Restart: func(t testing.TB) {
			if err := s.Kill(); err != nil {
				t.Errorf("kill the server: %v", err)
			}
			if err := s.Resume(t.Context()); err != nil {
				t.Errorf("restart: %v", err)
			}
		},
		Bounded: func(t testing.TB, n int) *sinktest.CommandClient {
			return commandClient(t, s, rabbitmq.CommandOptions{Prefix: p, MaxMessages: int64(n)})
		},
		Misconfigure: func(t testing.TB, queue string) {
			declare(t, s, p+"cmd."+queue, amqp.Table{"x-queue-type": "classic"})
		},
		MaxMessage: rabbittest.MaxMessageSize + 1,
		Patience:   3 * time.Minute, // a node starts in 5 seconds, or in 60 on a busy machine
		NoMemory:   true,
		InWork:     inWork(s, p),
	}
}

func declare(t testing.TB, s *rabbitserver.Server, name string, args amqp.Table) {
	t.Helper()
	conn, err := amqp.Dial(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare(name, true, false, false, false, args); err != nil {
		t.Fatalf("declare queue %s: %v", name, err)
	}
}
