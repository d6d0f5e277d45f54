"""The Trio shell around ``wire``: connections, streams, server, channel, interceptors."""
