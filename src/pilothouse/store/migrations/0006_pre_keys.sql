-- API keys. Only the hash of a secret is kept; `tenant` empty means all tenants.

CREATE TABLE api_keys (
    id {id} PRIMARY KEY,
    name TEXT NOT NULL,
    role {id} NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    tenant {id},
    secret_hash {id} NOT NULL,
    created_at BIGINT NOT NULL,
    created_by {id} NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT,
    revoked_at BIGINT
);
