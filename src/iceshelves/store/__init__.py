"""The database: tables, migrations and the queries over them.  Knows nothing of HTTP or hypervisors."""
