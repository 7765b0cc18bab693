package offline

import (
	"context"
	"database/sql"
)

// VacuumInto copies a database to an empty file.
func VacuumInto(ctx context.Context, db *sql.DB, file string) error { return vacuumInto(ctx, db, file) }
