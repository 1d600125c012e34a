//! Debian packages, for machines where a tool is missing and we may install it. Where we may not,
//! the error says what to run.

use crate::workspace::{Workspace, is_root, on_path, output, run, say};
use anyhow::{Context as _, Result, bail};

/// Makes sure that these Debian packages are installed; `purpose` says what for.
pub(crate) fn ensure(ctx: &Workspace, names: &[&str], purpose: &str) -> Result<()> {
    let missing: Vec<&str> = names.iter().copied().filter(|name| !installed(ctx, name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if on_path("apt-get").is_none() {
        bail!("{purpose} needs `{list}`: install what your system calls these Debian packages");
    }
    if !is_root() {
        bail!(
            "{purpose} needs packages that only root can install; run: sudo apt-get install -y {list}"
        );
    }
    say(&format!("apt-get install {list} ({purpose})"));
    if install(ctx, &missing).is_err() {
        run(ctx.command("apt-get").args(["-o", "Acquire::Retries=3", "-q", "update"]))?;
        install(ctx, &missing)
            .with_context(|| format!("{purpose} needs packages; run: apt-get install -y {list}"))?;
    }
    Ok(())
}

/// Whether dpkg knows the package as installed.
fn installed(ctx: &Workspace, name: &str) -> bool {
    let mut query = ctx.command("dpkg-query");
    output(query.args(["-W", "-f", "${db:Status-Status}", name])).is_ok_and(|s| s == "installed")
}

/// One `apt-get install`, without questions.
fn install(ctx: &Workspace, names: &[&str]) -> Result<()> {
    let mut command = ctx.command("apt-get");
    command.args(["-o", "Acquire::Retries=3", "-o", "Dpkg::Use-Pty=0"]);
    command.args(["-q", "install", "-y", "--no-install-recommends"]).args(names);
    run(command.env("DEBIAN_FRONTEND", "noninteractive"))
}
