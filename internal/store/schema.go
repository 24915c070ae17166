package store

import (
	"context"
	"database/sql"
	"fmt"
)

// migrations bring a database from one version to the next. A released one never changes; a new one is added at the end.
var migrations = []string{
	`CREATE TABLE settings (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;

	CREATE TABLE nodes (
		id INTEGER PRIMARY KEY AUTOINCREMENT,
		name TEXT NOT NULL UNIQUE,
		ek BLOB NOT NULL UNIQUE,
		ek_cert TEXT NOT NULL,
		software INTEGER NOT NULL,
		ak_public BLOB NOT NULL,
		tls_key BLOB NOT NULL,
		agent TEXT NOT NULL,
		enrolled INTEGER NOT NULL,
		rebind_ek BLOB,
		rebind_until INTEGER NOT NULL DEFAULT 0
	) STRICT;

	CREATE TABLE states (
		node INTEGER PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
		watermark INTEGER NOT NULL,
		trust TEXT NOT NULL,
		reason TEXT NOT NULL,
		levels BLOB,
		since INTEGER NOT NULL,
		attested INTEGER NOT NULL,
		expires INTEGER NOT NULL,
		checkpoint BLOB,
		snapshot TEXT NOT NULL,
		result TEXT NOT NULL,
		list INTEGER NOT NULL,
		bad INTEGER NOT NULL DEFAULT 0
	) STRICT;

	CREATE TABLE verdicts (
		node INTEGER PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
		verdict BLOB NOT NULL
	) STRICT;

	-- id is node * 4 + kind: one small key for the row that every attestation writes.
	CREATE TABLE evidence (
		id INTEGER PRIMARY KEY,
		node INTEGER NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
		at INTEGER NOT NULL,
		document BLOB NOT NULL,
		event_log BLOB,
		facts BLOB,
		list INTEGER NOT NULL,
		ima_len INTEGER NOT NULL,
		ima_tail BLOB
	) STRICT;
	CREATE INDEX evidence_node ON evidence (node);

	CREATE TABLE ima (
		node INTEGER NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
		list INTEGER NOT NULL,
		start INTEGER NOT NULL,
		size INTEGER NOT NULL,
		data BLOB NOT NULL,
		PRIMARY KEY (node, list, start)
	) STRICT;

	CREATE TABLE blobs (digest BLOB PRIMARY KEY, data BLOB NOT NULL) STRICT;

	CREATE TABLE history (
		id INTEGER PRIMARY KEY AUTOINCREMENT,
		node TEXT NOT NULL,
		at INTEGER NOT NULL,
		cause TEXT NOT NULL,
		was TEXT NOT NULL,
		now TEXT NOT NULL,
		reason TEXT NOT NULL,
		levels BLOB,
		snapshot TEXT NOT NULL
	) STRICT;
	CREATE INDEX history_node ON history (node, id);
	CREATE TRIGGER history_no_update BEFORE UPDATE ON history BEGIN SELECT RAISE (ABORT, 'history is append-only'); END;
	CREATE TRIGGER history_no_delete BEFORE DELETE ON history BEGIN SELECT RAISE (ABORT, 'history is append-only'); END;

	CREATE TABLE tokens (
		id TEXT PRIMARY KEY,
		hash BLOB NOT NULL,
		node TEXT NOT NULL,
		ek BLOB,
		left INTEGER NOT NULL,
		created INTEGER NOT NULL,
		expires INTEGER NOT NULL,
		note TEXT NOT NULL
	) STRICT;

	CREATE TABLE sessions (id BLOB PRIMARY KEY, expires INTEGER NOT NULL) STRICT, WITHOUT ROWID;
	CREATE TABLE eks (hash BLOB PRIMARY KEY, note TEXT NOT NULL, added INTEGER NOT NULL) STRICT, WITHOUT ROWID;

	CREATE TABLE acts (
		id INTEGER PRIMARY KEY AUTOINCREMENT,
		at INTEGER NOT NULL,
		operator TEXT NOT NULL,
		act TEXT NOT NULL,
		object TEXT NOT NULL,
		detail TEXT NOT NULL
	) STRICT;
	CREATE TRIGGER acts_no_update BEFORE UPDATE ON acts BEGIN SELECT RAISE (ABORT, 'acts are append-only'); END;
	CREATE TRIGGER acts_no_delete BEFORE DELETE ON acts BEGIN SELECT RAISE (ABORT, 'acts are append-only'); END;`,

	// A log that the last Evidence has let go of is removed at once: what one node makes AIAS keep is bounded, however often it sends another.
	`CREATE TABLE log_refs (
		digest BLOB NOT NULL,
		evidence INTEGER NOT NULL,
		facts INTEGER NOT NULL,
		PRIMARY KEY (digest, evidence, facts)
	) STRICT, WITHOUT ROWID;
	INSERT INTO log_refs SELECT event_log, id, 0 FROM evidence WHERE event_log IS NOT NULL;
	INSERT INTO log_refs SELECT facts, id, 1 FROM evidence WHERE facts IS NOT NULL;
	CREATE TRIGGER log_refs_insert AFTER INSERT ON evidence BEGIN
		INSERT INTO log_refs SELECT NEW.event_log, NEW.id, 0 WHERE NEW.event_log IS NOT NULL;
		INSERT INTO log_refs SELECT NEW.facts, NEW.id, 1 WHERE NEW.facts IS NOT NULL;
	END;
	CREATE TRIGGER log_refs_log AFTER UPDATE ON evidence WHEN OLD.event_log IS NOT NEW.event_log BEGIN
		INSERT INTO log_refs SELECT NEW.event_log, NEW.id, 0 WHERE NEW.event_log IS NOT NULL;
		DELETE FROM log_refs WHERE digest = OLD.event_log AND evidence = OLD.id AND facts = 0;
		DELETE FROM blobs WHERE digest = OLD.event_log AND NOT EXISTS (SELECT 1 FROM log_refs WHERE digest = OLD.event_log);
	END;
	CREATE TRIGGER log_refs_facts AFTER UPDATE ON evidence WHEN OLD.facts IS NOT NEW.facts BEGIN
		INSERT INTO log_refs SELECT NEW.facts, NEW.id, 1 WHERE NEW.facts IS NOT NULL;
		DELETE FROM log_refs WHERE digest = OLD.facts AND evidence = OLD.id AND facts = 1;
		DELETE FROM blobs WHERE digest = OLD.facts AND NOT EXISTS (SELECT 1 FROM log_refs WHERE digest = OLD.facts);
	END;
	CREATE TRIGGER log_refs_delete AFTER DELETE ON evidence BEGIN
		DELETE FROM log_refs WHERE digest = OLD.event_log AND evidence = OLD.id AND facts = 0;
		DELETE FROM log_refs WHERE digest = OLD.facts AND evidence = OLD.id AND facts = 1;
		DELETE FROM blobs WHERE digest IN (OLD.event_log, OLD.facts) AND NOT EXISTS (SELECT 1 FROM log_refs WHERE log_refs.digest = blobs.digest);
	END;`,

	// By name, not by node: serials go on counting when a node was removed and enrols again.
	`CREATE TABLE tags (
		node TEXT PRIMARY KEY,
		serial INTEGER NOT NULL,
		tags BLOB,
		record BLOB,
		issued INTEGER NOT NULL,
		proven INTEGER NOT NULL,
		since INTEGER NOT NULL,
		reason TEXT NOT NULL,
		earlier BLOB,
		earlier_tags BLOB
	) STRICT, WITHOUT ROWID;`,

	// Nothing refers from a key to its class: what the class said goes along with the key.
	`CREATE TABLE image_keys (
		id TEXT PRIMARY KEY,
		wrapped BLOB NOT NULL,
		class TEXT NOT NULL,
		conditions BLOB NOT NULL,
		image TEXT NOT NULL,
		created INTEGER NOT NULL,
		operator TEXT NOT NULL,
		revoked INTEGER NOT NULL
	) STRICT, WITHOUT ROWID;
	CREATE TABLE classes (
		name TEXT PRIMARY KEY,
		conditions BLOB NOT NULL,
		at INTEGER NOT NULL,
		operator TEXT NOT NULL
	) STRICT, WITHOUT ROWID;`,
	// Keys of disks. Those of a node outlive the node: its disks do, too.
	`CREATE TABLE disk_keys (
		thumbprint TEXT PRIMARY KEY,
		node TEXT NOT NULL,
		use TEXT NOT NULL,
		sealed BLOB NOT NULL,
		created INTEGER NOT NULL,
		rotated INTEGER NOT NULL,
		imported INTEGER NOT NULL
	) STRICT, WITHOUT ROWID;
	CREATE INDEX disk_keys_node ON disk_keys (node);
	CREATE TABLE disk_nodes (node TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT, WITHOUT ROWID;
	CREATE TABLE disk_uses (
		thumbprint TEXT NOT NULL REFERENCES disk_keys (thumbprint) ON DELETE CASCADE,
		client TEXT NOT NULL,
		last INTEGER NOT NULL,
		count INTEGER NOT NULL,
		PRIMARY KEY (thumbprint, client)
	) STRICT, WITHOUT ROWID;
	CREATE INDEX disk_uses_last ON disk_uses (thumbprint, last);`,

	`CREATE TABLE disk_escrows (
		node TEXT NOT NULL,
		volume TEXT NOT NULL,
		sealed BLOB NOT NULL,
		state BLOB NOT NULL,
		PRIMARY KEY (node, volume)
	) STRICT, WITHOUT ROWID;`,

	// Misuse found in audit events. seen is the number of the last event of the node that was looked at when something was found.
	`CREATE TABLE detections (
		node INTEGER NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
		id TEXT NOT NULL,
		data BLOB NOT NULL,
		PRIMARY KEY (node, id)
	) STRICT, WITHOUT ROWID;
	CREATE TABLE detections_seen (
		node INTEGER PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
		seen INTEGER NOT NULL,
		boot TEXT NOT NULL
	) STRICT;`,

	// The newest scan of each image by each profile.
	`CREATE TABLE image_scans (
		config TEXT NOT NULL,
		manifest TEXT NOT NULL,
		profile TEXT NOT NULL,
		at INTEGER NOT NULL,
		record BLOB NOT NULL,
		PRIMARY KEY (config, manifest, profile)
	) STRICT, WITHOUT ROWID;
	CREATE INDEX image_scans_manifest ON image_scans (manifest);
	CREATE INDEX image_scans_at ON image_scans (at);`,

	`CREATE TABLE compliance (
		node INTEGER PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
		newest BLOB,
		previous BLOB,
		error BLOB,
		result BLOB
	) STRICT;`,

	// Scans of images by workers.
	`CREATE TABLE worker_scans (
		config TEXT NOT NULL,
		manifest TEXT NOT NULL,
		profile TEXT NOT NULL,
		content TEXT NOT NULL,
		tailoring TEXT NOT NULL,
		at INTEGER NOT NULL,
		node INTEGER NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
		received INTEGER NOT NULL,
		record BLOB NOT NULL,
		PRIMARY KEY (config, manifest, profile, content, tailoring)
	) STRICT, WITHOUT ROWID;
	CREATE INDEX worker_scans_manifest ON worker_scans (manifest);
	CREATE INDEX worker_scans_node ON worker_scans (node, received);
	CREATE INDEX worker_scans_at ON worker_scans (at);`,

	// Compliance scans that operators asked for and that have not come.
	`CREATE TABLE scan_asks (
		node INTEGER PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
		number INTEGER NOT NULL
	) STRICT;`,
	`ALTER TABLE scan_asks ADD COLUMN documents INTEGER NOT NULL DEFAULT 0`,
}

// migrate brings the database to the newest version, each step in its own transaction. A database from a newer program is refused.
func migrate(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP) STRICT`); err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	var have int
	if err := conn.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM migrations`).Scan(&have); err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	if have > len(migrations) {
		return fmt.Errorf("the database has version %d, this program knows %d: use the newer aias, or restore a backup", have, len(migrations))
	}
	for v := have + 1; v <= len(migrations); v++ {
		tx, err := conn.BeginTx(ctx, nil)
		if err != nil {
			return fmt.Errorf("migrate the database to version %d: %w", v, err)
		}
		_, err = tx.ExecContext(ctx, migrations[v-1])
		if err == nil {
			_, err = tx.ExecContext(ctx, `INSERT INTO migrations (version) VALUES (?)`, v)
		}
		if err != nil {
			_ = tx.Rollback()
			return fmt.Errorf("migrate the database to version %d: %w", v, err)
		}
		if err := tx.Commit(); err != nil {
			return fmt.Errorf("migrate the database to version %d: %w", v, err)
		}
	}
	return nil
}
