package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// A natsLogin says who connects to a NATS server, how the server is known, and
// where JetStream is there. Its flags begin with prefix.
type natsLogin struct {
	prefix string // such as "nats-"

	creds, nkey            string // files
	user                   string
	password, passwordFile string
	token, tokenFile       string
	tls                    tlsFiles
	natsPlace
}

// A natsPlace says where JetStream is, for an account that does not have its
// own: in a domain, or behind a prefix of its API. One is set at most.
type natsPlace struct{ domain, apiPrefix string }

// natsPrefix is what the flags begin with, unless a command knows two servers.
const natsPrefix = "nats-"

func (l *natsLogin) add(cmd *cobra.Command, prefix string) {
	l.prefix = prefix
	flags := cmd.Flags()
	for _, f := range []struct {
		value      *string
		name, help string
	}{
		{&l.creds, "creds", "credentials `file` for --" + prefix + "url"},
		{&l.nkey, "nkey", "`file` with the seed of an NKEY, instead"},
		{&l.user, "user", "`name` of the user, instead"},
		{&l.password, "password", "the user's `password`; it is safer in the environment, or in a file"},
		{&l.passwordFile, "password-file", "`file` with the user's password"},
		{&l.token, "token", "`token`, instead of a user; it is safer in the environment, or in a file"},
		{&l.tokenFile, "token-file", "`file` with the token"},
		{&l.tls.ca, "ca", "`file` with the certificates (PEM) of the authorities that sign the server's (default: those of the system)"},
		{&l.tls.cert, "cert", "`file` with a certificate (PEM) to show to the server"},
		{&l.tls.key, "key", "`file` with its key (PEM)"},
		{&l.tls.serverName, "server-name", "the `name` in the server's certificate (default: the host of the URL)"},
	} {
		flags.StringVar(f.value, prefix+f.name, "", f.help)
	}
	flags.StringVar(&l.domain, prefix+"domain", "", "the JetStream `domain` of the streams, as behind a leaf node (default: the server's own)")
	flags.StringVar(&l.apiPrefix, prefix+"api-prefix", "", "the `prefix` of JetStream's API instead, where it is imported from another account, such as hub.API")
}

// flags are their names.
func (l *natsLogin) flags() []string {
	names := []string{"creds", "nkey", "user", "password", "password-file", "token", "token-file", "ca", "cert", "key", "server-name", "domain", "api-prefix"}
	for i := range names {
		names[i] = l.prefix + names[i]
	}
	return names
}

// check finds what makes no sense, and files that cannot be read.
func (l *natsLogin) check(a *app, cmd *cobra.Command) error {
	// One flag of each way to say who connects.
	ways := []string{l.prefix + "creds", l.prefix + "nkey", l.prefix + "user", l.prefix + "token", l.prefix + "token-file"}
	var faults []error
	for i, one := range ways {
		faults = append(faults, a.exclude(cmd, one, "there is one way to say who connects", ways[i+1:]...))
	}
	faults = append(faults, a.exclude(cmd, l.prefix+"password", "one password is enough", l.prefix+"password-file"))
	given := slices.ContainsFunc(ways, func(way string) bool { return cmd.Flag(way).Value.String() != "" })
	for _, flag := range []string{l.prefix + "password", l.prefix + "password-file"} {
		if cmd.Flag(flag).Value.String() != "" && !given {
			faults = append(faults, fmt.Errorf("%s needs %suser", a.spelling(flag), l.prefix))
		}
	}
	wrong := func(flag string, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", a.spelling(l.prefix+flag), err))
		}
	}
	if l.creds != "" {
		_, err := os.Stat(l.creds)
		wrong("creds", unseen(err))
	}
	if l.nkey != "" {
		_, err := os.Stat(l.nkey)
		if err == nil {
			if _, unfit := nats.NkeyOptionFromSeed(l.nkey); unfit != nil { // whose words may be what is in the file
				err = fmt.Errorf("%s holds no seed of an NKEY, which begins with SU", l.nkey)
			}
		}
		wrong("nkey", unseen(err))
	}
	if l.passwordFile != "" {
		_, err := readSecret(l.passwordFile)
		wrong("password-file", err)
	}
	if l.tokenFile != "" {
		_, err := readSecret(l.tokenFile)
		wrong("token-file", err)
	}
	_, err := l.tls.config()
	wrong(l.tls.about(), err)
	wrong("domain", l.wrongDomain())
	wrong("api-prefix", l.wrongPrefix())
	faults = append(faults, a.exclude(cmd, l.prefix+"domain", "both say where JetStream is", l.prefix+"api-prefix"))
	return usage(faults...)
}

func (l *natsPlace) wrongDomain() error {
	if strings.ContainsAny(l.domain, " .*>\t") {
		return errors.New("the name of a domain has no spaces, dots, * and >")
	}
	return nil
}

func (l *natsPlace) wrongPrefix() error {
	if strings.ContainsAny(l.apiPrefix, " *>\t") || strings.HasPrefix(l.apiPrefix, ".") || strings.Contains(l.apiPrefix, "..") {
		return errors.New("the prefix of an API is words with dots between them, without spaces, * and >")
	}
	return nil
}

// checkLogin checks the login of a run, which has one only with a server of the
// user's.
func (a *app) checkLogin(cmd *cobra.Command, f *natsFlags) error {
	if f.url != "" {
		return f.login.check(a, cmd)
	}
	var faults []error
	for _, flag := range f.login.flags() {
		faults = append(faults, a.needs(cmd, flag, "nats-url"))
	}
	return usage(faults...)
}

// connect connects as name. It has been checked.
func (l *natsLogin) connect(serverURL, name string) (*nats.Conn, error) {
	opts := &jetstream.ConnectOptions{
		Name: name, CredentialsFile: l.creds, NKeySeedFile: l.nkey, User: l.user, Token: l.token,
	}
	var errs [3]error
	opts.TLS, errs[0] = l.tls.config()
	if l.user != "" {
		opts.Password = l.password
		if l.passwordFile != "" {
			opts.Password, errs[1] = readSecret(l.passwordFile)
		}
	}
	if l.tokenFile != "" {
		opts.Token, errs[2] = readSecret(l.tokenFile)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	return jetstream.Connect(serverURL, opts)
}

// jetStream returns JetStream on a connection.
func (l *natsPlace) jetStream(nc *nats.Conn) (natsjs.JetStream, error) {
	switch {
	case l.domain != "":
		return natsjs.NewWithDomain(nc, l.domain)
	case l.apiPrefix != "":
		return natsjs.NewWithAPIPrefix(nc, strings.TrimSuffix(l.apiPrefix, "."))
	}
	return natsjs.New(nc)
}

// source is [jetstream.NewSource] for a stream there.
func (l *natsPlace) source(nc *nats.Conn, stream string, opts *sinks.SourceOptions) (*sinks.Source, error) {
	if l.apiPrefix != "" {
		return jetstream.NewImportedSource(nc, l.apiPrefix, stream, opts)
	}
	return jetstream.NewDomainSource(nc, l.domain, stream, opts)
}
