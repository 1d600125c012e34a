//! What the built filter asks of its host and offers to it. A function that Envoy does not have
//! stops the module from loading, so that is found here, before Envoy says it less clearly.

use crate::workspace::{Workspace, write_whole};
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeSet;
use std::path::PathBuf;
use wasmparser::{Parser, Payload};

/// The WASI calls that Envoy's host answers (`FOR_ALL_WASI_FUNCTIONS` in proxy-wasm-cpp-host).
const WASI: [&str; 18] = [
    "args_get",
    "args_sizes_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_close",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_read",
    "fd_seek",
    "fd_write",
    "path_open",
    "poll_oneoff",
    "proc_exit",
    "random_get",
    "sched_yield",
];
/// What Envoy must find in the module: the ABI's version, an allocator, and a start.
const NEEDED: [&str; 4] =
    ["proxy_abi_version_0_2_1", "proxy_on_context_create", "memory", "proxy_on_memory_allocate"];
/// The last of [`NEEDED`] has an older name that hosts accept as well.
const ALLOCATE_TOO: &str = "malloc";

/// The names that cross the border between the module and its host.
#[derive(Debug, Default, PartialEq, Eq)]
struct Interface {
    imports: BTreeSet<String>,
    exports: BTreeSet<String>,
}

/// Refuses a module that Envoy could not load.
pub(crate) fn check_interface(module: &[u8]) -> Result<()> {
    let interface = read(module)?;
    let foreign: Vec<&str> =
        interface.imports.iter().map(String::as_str).filter(|n| !offered(n)).collect();
    if !foreign.is_empty() {
        bail!("the filter imports what Envoy does not offer: {}", foreign.join(", "));
    }
    for name in NEEDED {
        let older = name == "proxy_on_memory_allocate" && interface.exports.contains(ALLOCATE_TOO);
        if !older && !interface.exports.contains(name) {
            bail!("the filter does not export `{name}`, which Envoy needs");
        }
    }
    Ok(())
}

/// Compares the module with the committed list; `bless` rewrites the list instead.
pub(crate) fn compare(ctx: &Workspace, module: &[u8], bless: bool) -> Result<()> {
    let found = listing(&read(module)?);
    let file = list_file(ctx);
    if bless {
        write_whole(&file, found.as_bytes())?;
        println!("    wrote {}", ctx.shown(&file));
        return Ok(());
    }
    let known = std::fs::read_to_string(&file).with_context(|| {
        format!("{} is missing; run `cargo xtask test --bless`", ctx.shown(&file))
    })?;
    let (known, found): (BTreeSet<&str>, BTreeSet<&str>) = (lines(&known), lines(&found));
    let changes: Vec<String> = found
        .difference(&known)
        .map(|line| format!("  + {line}"))
        .chain(known.difference(&found).map(|line| format!("  - {line}")))
        .collect();
    if changes.is_empty() {
        return Ok(());
    }
    bail!(
        "the filter's imports and exports are not those of {}:\n{}\nIf that is meant, run \
         `cargo xtask test --bless` and commit the file.",
        ctx.shown(&file),
        changes.join("\n")
    )
}

/// The committed list.
fn list_file(ctx: &Workspace) -> PathBuf {
    ctx.root().join("src/filter/imports.txt")
}

/// The names in a list: no comments, no empty lines.
fn lines(text: &str) -> BTreeSet<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// The list as it is committed.
fn listing(interface: &Interface) -> String {
    let mut text = String::from(
        "# What the filter asks of Envoy and offers to it. Written by `cargo xtask test --bless`.\n",
    );
    for (kind, names) in [("import", &interface.imports), ("export", &interface.exports)] {
        for name in names {
            text.push_str(&format!("{kind} {name}\n"));
        }
    }
    text
}

/// Whether Envoy offers an import, given as `module.name`.
fn offered(import: &str) -> bool {
    match import.split_once('.') {
        Some(("env", name)) => name.starts_with("proxy_"),
        Some(("wasi_snapshot_preview1", name)) => WASI.contains(&name),
        _ => false,
    }
}

/// Reads the import and export sections.
fn read(module: &[u8]) -> Result<Interface> {
    let mut interface = Interface::default();
    for payload in Parser::new(0).parse_all(module) {
        match payload.context("the filter is not a wasm module")? {
            Payload::ImportSection(section) => {
                for import in section {
                    let import = import.context("reading the imports")?;
                    interface.imports.insert(format!("{}.{}", import.module, import.name));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let name = export.context("reading the exports")?.name;
                    interface.exports.insert(name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module with one imported function and the exports that are given, all the same memory.
    fn module(import: (&str, &str), exports: &[&str]) -> Vec<u8> {
        let name = |text: &str| {
            let mut bytes = vec![text.len() as u8];
            bytes.extend_from_slice(text.as_bytes());
            bytes
        };
        let section = |id: u8, body: Vec<u8>| {
            let mut bytes = vec![id, 0x80 | (body.len() % 128) as u8, (body.len() / 128) as u8];
            bytes.extend(body);
            bytes
        };
        let mut imports = vec![1];
        imports.extend(name(import.0));
        imports.extend(name(import.1));
        imports.extend([0, 0]);
        let mut exported = vec![exports.len() as u8];
        for export in exports {
            exported.extend(name(export));
            exported.extend([2, 0]);
        }
        let mut bytes = b"\0asm\x01\0\0\0".to_vec();
        bytes.extend(section(1, vec![1, 0x60, 0, 0]));
        bytes.extend(section(2, imports));
        bytes.extend(section(5, vec![1, 0, 1]));
        bytes.extend(section(7, exported));
        bytes
    }

    #[test]
    fn a_module_that_envoy_can_load_is_accepted() {
        check_interface(&module(("env", "proxy_log"), &NEEDED)).unwrap();
    }

    #[test]
    fn an_import_that_envoy_lacks_is_named() {
        let error = check_interface(&module(("env", "abort"), &NEEDED)).unwrap_err();
        assert!(error.to_string().contains("env.abort"), "{error}");
        let wasi = module(("wasi_snapshot_preview1", "sock_open"), &NEEDED);
        assert!(check_interface(&wasi).unwrap_err().to_string().contains("sock_open"));
    }

    #[test]
    fn a_missing_export_is_named() {
        let error = check_interface(&module(("env", "proxy_log"), &NEEDED[1..])).unwrap_err();
        assert!(error.to_string().contains("proxy_abi_version_0_2_1"), "{error}");
    }

    #[test]
    fn the_older_name_of_the_allocator_will_do() {
        let exports = [&NEEDED[..3], &[ALLOCATE_TOO]].concat();
        check_interface(&module(("env", "proxy_log"), &exports)).unwrap();
    }

    #[test]
    fn the_list_names_imports_and_exports() {
        let text = listing(&read(&module(("env", "proxy_log"), &["memory"])).unwrap());
        assert_eq!(lines(&text), BTreeSet::from(["import env.proxy_log", "export memory"]));
    }
}
