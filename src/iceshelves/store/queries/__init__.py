"""The reading side: Core selects that return rows.  Every query names the tenant that it reads for."""
