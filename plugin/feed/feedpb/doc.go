// Package feedpb holds the messages of the feed protocol, generated from
// feed.proto. Package feed is their only user; nothing else should depend on
// the generated types.
package feedpb

//go:generate go run github.com/bufbuild/buf/cmd/buf@v1.75.0 generate
