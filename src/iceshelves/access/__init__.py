"""Who may do what: identities and tokens, roles and permissions, audit, and secrets at rest."""
