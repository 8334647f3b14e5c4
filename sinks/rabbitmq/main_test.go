package rabbitmq_test

import (
	"testing"

	"github.com/rowcall/rowcall/internal/rabbitserver/rabbittest"
)

func TestMain(m *testing.M) { rabbittest.Main(m) }
