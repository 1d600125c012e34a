//! The file of the store: how it is made, opened, and brought to the present format.
//!
//! A file that is there is never replaced, and one that is refused stays as it was.

use super::{
    API_KEYS, BANS, BUCKETS, FILE, FORMAT, META, OVERRIDES, REVOCATIONS, failed, meta, missing,
    opening, storage,
};
use crate::store::{Identity, StoreError};
use redb::{Database, ReadableDatabase};
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::AssertUnwindSafe;
use std::path::Path;

/// Memory for pages: what is looked at often is in memory anyway, and Linux keeps pages as well.
const CACHE_BYTES: usize = 16 * 1024 * 1024;
/// The format before there were bans and overrides.
const FORMAT_WITHOUT_BANS: u64 = 1;

/// Opens a file that is there.
pub(super) fn open(file: &Path) -> Result<(Database, Identity), StoreError> {
    let open = || {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        let database = builder.open(file).map_err(opening)?;
        if format(&database)? == FORMAT_WITHOUT_BANS {
            // Looked at first: a file that lacks something must be refused as it is.
            identity(&database, FORMAT_WITHOUT_BANS)?;
            add_bans(&database)?;
        }
        let identity = identity(&database, FORMAT)?;
        Ok((database, identity))
    };
    // redb means to say what is wrong with a file, and may yet stumble over one.
    std::panic::catch_unwind(AssertUnwindSafe(open))
        .unwrap_or_else(|_| Err(StoreError::Corrupt("reading it broke off".to_owned())))
}

fn number(database: &Database, name: &str) -> Result<u64, StoreError> {
    let read = database.begin_read().map_err(failed)?;
    let table = read.open_table(META).map_err(missing)?;
    match table.get(name) {
        Ok(Some(value)) => Ok(value.value()),
        Ok(None) => Err(StoreError::Corrupt(format!("it has no `{name}`"))),
        Err(error) => Err(storage(error)),
    }
}

fn format(database: &Database) -> Result<u64, StoreError> {
    match number(database, meta::FORMAT)? {
        0 => Err(StoreError::Corrupt("it is of format 0".to_owned())),
        format if format > FORMAT => Err(StoreError::Newer(format)),
        format => Ok(format),
    }
}

/// Reads the identity; checks that everything is there that belongs to a format.
fn identity(database: &Database, format: u64) -> Result<Identity, StoreError> {
    let read = database.begin_read().map_err(failed)?;
    let mut tables = vec![
        ("revocations", read.open_table(REVOCATIONS).map(drop)),
        ("api-keys", read.open_table(API_KEYS).map(drop)),
        ("buckets", read.open_table(BUCKETS).map(drop)),
    ];
    if format > FORMAT_WITHOUT_BANS {
        tables.push(("bans", read.open_table(BANS).map(drop)));
        tables.push(("overrides", read.open_table(OVERRIDES).map(drop)));
    }
    for (name, there) in tables {
        there.map_err(|error| StoreError::Corrupt(format!("{name}: {error}")))?;
    }
    let number = |name| number(database, name);
    number(meta::NUMBER)?;
    let keys = [number(meta::KEY_0)?, number(meta::KEY_1)?];
    Ok(Identity { store: number(meta::STORE)?, keys })
}

/// From [`FORMAT_WITHOUT_BANS`] to [`FORMAT`], all or nothing.
fn add_bans(database: &Database) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(failed)?;
    transaction.open_table(BANS).map_err(missing)?;
    transaction.open_table(OVERRIDES).map_err(missing)?;
    {
        let mut table = transaction.open_table(META).map_err(missing)?;
        table.insert(meta::FORMAT, FORMAT).map_err(storage)?;
    }
    transaction.commit().map_err(failed)
}

/// Makes a store under another name first: a file under its own name is always whole.
pub(super) fn make(directory: &Path, file: &Path) -> Result<(), StoreError> {
    let making = directory.join(format!(".{FILE}.{}", std::process::id()));
    match fs::remove_file(&making) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(&making).map_err(failed)?;
    let random = || getrandom::u64().map_err(failed);
    let database = Database::create(&making).map_err(opening)?;
    let transaction = database.begin_write().map_err(failed)?;
    {
        let mut table = transaction.open_table(META).map_err(missing)?;
        for (name, value) in [
            (meta::FORMAT, FORMAT),
            (meta::STORE, random()?),
            (meta::KEY_0, random()?),
            (meta::KEY_1, random()?),
            (meta::NUMBER, 0),
        ] {
            table.insert(name, value).map_err(storage)?;
        }
        transaction.open_table(REVOCATIONS).map_err(missing)?;
        transaction.open_table(API_KEYS).map_err(missing)?;
        transaction.open_table(BANS).map_err(missing)?;
        transaction.open_table(OVERRIDES).map_err(missing)?;
        transaction.open_table(BUCKETS).map_err(missing)?;
    }
    transaction.commit().map_err(failed)?;
    drop(database);
    // Unlike a rename, a link does not replace what another sidecar has made meanwhile.
    let linked = match fs::hard_link(&making, file) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
        _ => Ok(()),
    };
    fs::remove_file(&making).map_err(failed)?;
    linked?;
    fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}
