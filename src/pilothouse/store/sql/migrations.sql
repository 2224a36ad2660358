-- name: applied_migrations
SELECT version, name, checksum, phase, applied_at FROM schema_migrations ORDER BY version
