"""What a hostile peer can do, done to a real server in memory, beside a client that must not notice.

One test per row of the table in docs/explanation/abuse.md. ``arena`` has the server, the neighbour and the attacker.
"""
