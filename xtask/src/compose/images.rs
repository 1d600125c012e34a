//! The images of the run: built and pulled as a user would where a registry can be reached, else
//! stand-ins under the same names, made from this system's packages and our artefacts.

use super::engine::Engine;
use crate::build::{self, envoy};
use crate::packages;
use crate::workspace::{Workspace, is_root, on_path, output, run, run_limited, say, timed};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// The base of our images.
const DEBIAN: &str = "debian:bookworm-slim";
/// Where Envoy comes from.
const ENVOY: &str = "envoyproxy/envoy:v1.40.0";
const REDIS: &str = "redis:7.4-bookworm";
const PROMETHEUS: &str = "prom/prometheus:v3.5.0";
/// Those that are not ours, and whose names stand-ins take.
const OFFICIAL: [&str; 4] = [DEBIAN, ENVOY, REDIS, PROMETHEUS];
/// The stages of the Dockerfile that are images, and their names without the tag.
const OURS: [(&str, &str); 3] = [
    ("envoy", "tracseq-gateway-envoy"),
    ("sidecar", "tracseq-gateway-sidecar"),
    ("demo", "tracseq-gateway-demo"),
];
/// In a run with stand-ins: our artefacts, where the Dockerfile's stage `build` leaves them.
const ARTEFACTS: &str = "tracseq-gateway-artefacts";
/// Marks what we made, so that a later run does not take it for the real thing.
const STAND_IN: &str = "tracseq.stand-in";
/// Where the Dockerfile's part begins that needs no compiler.
const IMAGES_PART: &str = "# --- The images.";
/// The largest image has some 150 MB; a registry that takes longer counts as unreachable.
const PULLED_WITHIN: Duration = Duration::from_secs(180);
/// What a container never reads, or gets from the engine: left out, a stand-in has a third the size.
const LEFT_OUT: [&str; 11] = [
    "./dev",
    "./proc",
    "./sys",
    "./var/cache",
    "./var/lib/apt",
    "./usr/share/doc",
    "./usr/share/man",
    "./usr/share/locale",
    "./usr/share/javascript",
    "./usr/share/nodejs",
    "./usr/share/fonts",
];

/// The images that this run added. Dropping them removes them again.
#[derive(Debug)]
pub(super) struct Images<'a> {
    ctx: &'a Workspace,
    engine: &'a Engine,
    /// The tag of our own images.
    tag: String,
    added: Vec<String>,
}

/// What an official name stands for on this engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    /// Nothing.
    Missing,
    /// What a run like this one made.
    StandIn,
    /// Anything else: the registry's image, or the user's.
    Real,
}

/// What came of preparing them.
#[derive(Debug)]
pub(super) enum Prepared<'a> {
    /// They are there.
    Images(Images<'a>),
    /// They cannot be had here; says why.
    Impossible(String),
}

impl<'a> Images<'a> {
    /// Builds and pulls, or makes stand-ins. Our own get `tag`, so that nobody's are replaced.
    /// With `fresh`, the artefacts for stand-ins are built first.
    pub(super) fn prepare(
        ctx: &'a Workspace,
        engine: &'a Engine,
        tag: &str,
        fresh: bool,
    ) -> Result<Prepared<'a>> {
        let mut images = Self { ctx, engine, tag: tag.to_owned(), added: Vec::new() };
        let Some(unreachable) = images.unreachable()? else {
            timed("building the images with the official ones", || images.real())?;
            return Ok(Prepared::Images(images));
        };
        if let Some(reason) = images.why_no_stand_ins(unreachable)? {
            return Ok(Prepared::Impossible(reason));
        }
        say("no image can be pulled: making stand-ins under the same names, from this system's");
        println!("    packages (debootstrap), the Envoy executable and our own artefacts");
        if fresh {
            build::run(&build::Args { envoy_version: Some(envoy::VERSION.to_owned()) }, ctx)?;
        }
        // Not the one in `target/dist`, which may be the user's own choice: the name says a version.
        let envoy = envoy::find(ctx, Some(envoy::VERSION))?;
        let archive = root_archive(ctx)?;
        timed("making the stand-ins", || images.stand_ins(&archive, &envoy))?;
        Ok(Prepared::Images(images))
    }

    /// Pulls every official image that is not here; the first that cannot be had, if any.
    fn unreachable(&self) -> Result<Option<&'static str>> {
        for name in OFFICIAL {
            if self.state(name)? == Is::Real {
                continue;
            }
            say(&format!("pulling {name}"));
            let mut pull = self.engine.docker(self.ctx);
            pull.args(["pull", "--quiet", name]).stderr(Stdio::null());
            if run_limited(&mut pull, PULLED_WITHIN).is_err() {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Why stand-ins cannot be made where this image cannot be pulled, if so. They take the official
    /// names, and an image that somebody else put there must neither be replaced nor removed.
    fn why_no_stand_ins(&self, unreachable: &str) -> Result<Option<String>> {
        if !is_root() || on_path("apt-get").is_none() {
            return Ok(Some(format!(
                "{unreachable} cannot be pulled, and stand-ins can be made only by root on Debian \
                 or Ubuntu"
            )));
        }
        let mut taken = Vec::new();
        for name in OFFICIAL {
            if self.state(name)? == Is::Real {
                taken.push(name);
            }
        }
        Ok((!taken.is_empty()).then(|| {
            let taken = taken.join(" ");
            format!(
                "{unreachable} cannot be pulled, and stand-ins would replace images that are here: \
                 pull it where there is a registry, or remove these: docker image rm {taken}"
            )
        }))
    }

    /// What a name stands for. An engine that does not say is an error: it is not that nothing is there.
    fn state(&self, name: &str) -> Result<Is> {
        let mut list = self.engine.docker(self.ctx);
        if output(list.args(["image", "ls", "--quiet", name]))?.trim().is_empty() {
            return Ok(Is::Missing);
        }
        let format = format!("{{{{index .Config.Labels \"{STAND_IN}\"}}}}");
        let mut inspect = self.engine.docker(self.ctx);
        let label = output(inspect.args(["image", "inspect", "--format", &format, name]))?;
        Ok(if label.trim() == "yes" { Is::StandIn } else { Is::Real })
    }

    /// Whether a name that we added is still ours: somebody may have pulled the official image.
    fn is_still_ours(&self, name: &str) -> bool {
        !OFFICIAL.contains(&name) || self.state(name).is_ok_and(|state| state == Is::StandIn)
    }

    /// As a user would build them. Images that were pulled stay: they are the registry's.
    fn real(&mut self) -> Result<()> {
        for (stage, name) in OURS {
            let tagged = format!("{name}:{}", self.tag);
            let mut docker = self.engine.docker(self.ctx);
            docker.args(["build", "--file", "envoy/docker/Dockerfile", "--target", stage]);
            docker.args(["--tag", &tagged]);
            if self.engine.is_own() {
                // Our own engine has no bridge for builds.
                docker.args(["--network", "host"]);
            }
            run(docker.arg("."))?;
            self.added.push(tagged);
        }
        Ok(())
    }

    /// Under the official names what our Dockerfile and docker-compose.yml need of those images,
    /// then our own by that very Dockerfile, with the artefacts in place of its compiler stage.
    fn stand_ins(&mut self, archive: &Path, envoy: &Path) -> Result<()> {
        let label = format!("LABEL {STAND_IN}=yes");
        let mut import = self.engine.docker(self.ctx);
        import.args(["import", "--change", &label]).arg(archive).arg(DEBIAN);
        output(&mut import)?;
        self.added.push(DEBIAN.to_owned());

        let context = tempfile::tempdir_in(self.ctx.root().join("target/compose"))?;
        let ours = [build::FILTER, build::SIDECAR, build::DEMO_SERVICE];
        let dist = self.ctx.dist();
        let files = ours.map(|name| (name, dist.join(name)));
        for (name, from) in files.into_iter().chain([(build::ENVOY, envoy.to_owned())]) {
            fs::copy(&from, context.path().join(name))
                .with_context(|| format!("copying {}", from.display()))?;
        }
        let from = format!("FROM {DEBIAN}\n");
        let envoy = format!("{from}COPY {} /usr/local/bin/envoy\n", build::ENVOY);
        self.build(context.path(), &envoy, ENVOY, None)?;
        let redis = format!("{from}RUN install -d -o redis -g redis /data\n");
        self.build(context.path(), &redis, REDIS, None)?;
        let prometheus = format!(
            "{from}RUN install -d -o 65534 -g 65534 /prometheus\nENTRYPOINT [\"/bin/prometheus\"]\n"
        );
        self.build(context.path(), &prometheus, PROMETHEUS, None)?;

        let artefacts = format!("{ARTEFACTS}:{}", self.tag);
        let copied = ours.join(" ");
        let text = format!("FROM scratch\nCOPY {copied} /out/\n");
        self.build(context.path(), &text, &artefacts, None)?;
        let dockerfile = self.without_compiler(&artefacts)?;
        for (stage, name) in OURS {
            let tagged = format!("{name}:{}", self.tag);
            self.build(context.path(), &dockerfile, &tagged, Some(stage))?;
        }
        Ok(())
    }

    /// The Dockerfile with the image `artefacts` as its first stage.
    fn without_compiler(&self, artefacts: &str) -> Result<String> {
        let path = self.ctx.root().join("envoy/docker/Dockerfile");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let Some(images) = text.find(IMAGES_PART).and_then(|at| text.get(at..)) else {
            bail!("{}: no line `{IMAGES_PART}`", path.display());
        };
        Ok(format!("FROM {artefacts} AS build\n{images}"))
    }

    /// One image by the classic builder, which needs nothing but images that are here.
    fn build(&mut self, context: &Path, text: &str, name: &str, stage: Option<&str>) -> Result<()> {
        let file = context.join("Dockerfile");
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        let mut docker = self.engine.docker(self.ctx);
        docker.env("DOCKER_BUILDKIT", "0").args(["build", "--quiet", "--network", "none"]);
        docker.args(["--tag", name]);
        if let Some(stage) = stage {
            docker.args(["--target", stage]);
        }
        output(docker.arg(context)).with_context(|| format!("making {name}"))?;
        self.added.push(name.to_owned());
        Ok(())
    }
}

impl Drop for Images<'_> {
    fn drop(&mut self) {
        if self.added.is_empty() || self.engine.is_own() {
            return; // our own engine goes with all that it holds
        }
        let ours = self.added.iter().filter(|name| self.is_still_ours(name));
        let mut remove = self.engine.docker(self.ctx);
        remove.args(["image", "rm", "--force"]).args(ours);
        if let Err(error) = output(&mut remove) {
            eprintln!("images may be left: {error:#}");
        }
    }
}

/// A root file system with the packages that the stand-ins need; made once and kept in `target/`.
fn root_archive(ctx: &Workspace) -> Result<PathBuf> {
    let suite = suite()?;
    let dir = ctx.root().join("target/compose");
    let archive = dir.join(format!("{suite}.tar"));
    if archive.is_file() {
        return Ok(archive);
    }
    packages::ensure(ctx, &["debootstrap"], "stand-ins for images")?;
    timed(&format!("debootstrap {suite} (once; kept in target/compose)"), || {
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let root = tempfile::Builder::new().prefix("root-").tempdir_in(&dir)?;
        let mut make = ctx.command("debootstrap");
        make.args(["--variant=minbase", "--include=redis-server,prometheus,wget"]);
        if on_ubuntu() {
            make.arg("--components=main,universe");
        }
        output(make.arg(&suite).arg(root.path()))?;
        let fresh = archive.with_extension("new");
        let mut tar = ctx.command("tar");
        tar.arg("--directory").arg(root.path()).arg("--create").arg("--file").arg(&fresh);
        tar.args(LEFT_OUT.map(|path| format!("--exclude={path}")));
        output(tar.arg("."))?;
        fs::rename(&fresh, &archive).with_context(|| format!("naming {}", archive.display()))?;
        Ok(archive.clone())
    })
}

/// This system's release: what our executables were linked on, so what they run on.
fn suite() -> Result<String> {
    os_release("VERSION_CODENAME").context("/etc/os-release names no VERSION_CODENAME")
}

fn on_ubuntu() -> bool {
    os_release("ID").is_some_and(|id| id == "ubuntu")
}

fn os_release(key: &str) -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::{DEBIAN, ENVOY, IMAGES_PART, OURS, PROMETHEUS, REDIS, envoy};

    const COMPOSE: &str = include_str!("../../../docker-compose.yml");
    const DOCKERFILE: &str = include_str!("../../../envoy/docker/Dockerfile");

    #[test]
    fn the_names_are_those_that_the_files_use() {
        for name in [REDIS, PROMETHEUS] {
            assert!(COMPOSE.contains(&format!("image: {name}\n")), "{name}");
        }
        for name in [DEBIAN, ENVOY] {
            assert!(DOCKERFILE.contains(&format!("FROM {name} AS ")), "{name}");
        }
        assert!(ENVOY.ends_with(&format!(":v{}", envoy::VERSION)));
        for (stage, name) in OURS {
            assert!(COMPOSE.contains(&format!("image: {name}:${{GATEWAY_TAG:-dev}}\n")), "{name}");
            // Twice, and Compose v2 would build it twice at once and fail.
            let builds = COMPOSE.matches(&format!("target: {stage} }}")).count();
            assert_eq!(builds, 1, "{stage}");
            assert!(DOCKERFILE.contains(&format!(" AS {stage}\n")), "{stage}");
        }
        assert!(DOCKERFILE.contains(IMAGES_PART));
    }
}
