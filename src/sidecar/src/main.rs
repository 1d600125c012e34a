//! The companion process of one Envoy: its modes, and the only place that reads the environment.

mod document;
mod log;
mod render;
mod serve;
mod store;
mod validate;

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The companion of a TracSeq Gateway.
#[derive(Parser)]
#[command(name = "gateway-sidecar", version)]
struct Arguments {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Run beside Envoy: administration, health and metrics.
    Serve(Serve),
    /// Check policies: bare ones, and those inside Envoy or Istio YAML.
    Validate {
        /// The files. Given together, the routes of one are checked against the policy of another.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Print the policy's JSON Schema.
    Schema,
    /// Wrap a bare policy into the resource that Envoy loads.
    Render(Render),
}

#[derive(clap::Args)]
struct Serve {
    /// Address and port; port 0 is any free one.
    #[arg(long, env = "GATEWAY_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:9902")]
    listen: String,
    /// Envoy's admin interface.
    #[arg(
        long,
        env = "GATEWAY_ENVOY_ADMIN",
        value_name = "URL",
        default_value = "http://127.0.0.1:9901"
    )]
    envoy_admin: String,
    /// The token that changes need; made when the file is not there.
    #[arg(long, env = "GATEWAY_ADMIN_TOKEN_FILE", value_name = "PATH")]
    admin_token_file: Option<PathBuf>,
    /// The token of the filter; else it is in GATEWAY_SYNC_TOKEN.
    #[arg(long, env = "GATEWAY_SYNC_TOKEN_FILE", value_name = "PATH")]
    sync_token_file: Option<PathBuf>,
    /// Where the store is kept: revocations and API keys. Made when it is not there.
    #[arg(
        long,
        env = "GATEWAY_DATA_DIR",
        value_name = "DIR",
        default_value = "/var/lib/tracseq-gateway"
    )]
    data_dir: PathBuf,
    /// The only directory from which files are read that a policy names.
    #[arg(long, env = "GATEWAY_FILES_DIR", value_name = "DIR", default_value = "/run/secrets")]
    files_dir: PathBuf,
}

#[derive(clap::Args)]
struct Render {
    /// The bare policy.
    file: PathBuf,
    /// The filter module, where Envoy finds it.
    #[arg(long, value_name = "PATH")]
    module: PathBuf,
    /// Where the resource goes, by a rename; standard output when left out.
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Go on, and render again whenever FILE is saved, mistakes included.
    #[arg(long, requires = "out")]
    watch: bool,
    /// Write the resource in spite of mistakes: the gateway refuses it, and keeps the old one.
    #[arg(long)]
    unchecked: bool,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().mode {
        Mode::Serve(options) => serve_requests(options),
        Mode::Validate { files } => validate_files(&files),
        Mode::Schema => print(&format!("{:#}\n", policy::config::schema())),
        Mode::Render(options) => render_file(options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn serve_requests(options: Serve) -> Result<(), String> {
    log::start();
    let given = serve::settings::Given {
        listen: options.listen,
        envoy_admin: options.envoy_admin,
        admin_token_file: options.admin_token_file,
        sync_token_file: options.sync_token_file,
        // Not an argument: those can be seen by everybody on the machine.
        sync_token: std::env::var("GATEWAY_SYNC_TOKEN").ok(),
        data_dir: options.data_dir,
        files_dir: options.files_dir,
    };
    let settings = given.check().map_err(|mistakes| mistakes.join("\n"))?;
    runtime()?.block_on(async { serve::serve(settings, stop_signal()?).await })
}

fn print(text: &str) -> Result<(), String> {
    use std::io::Write as _;
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| format!("standard output: {error}"))
}

fn read(file: &Path) -> Result<String, String> {
    render::watch::read(file).map_err(|why| format!("{}: {why}", file.display()))
}

fn all_lines(file: &Path, findings: &[document::Finding]) -> String {
    let lines: Vec<String> =
        findings.iter().map(|finding| format!("{}:{finding}", file.display())).collect();
    lines.join("\n")
}

fn validate_files(files: &[PathBuf]) -> Result<(), String> {
    let texts = files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    let reports = validate::check_together(&texts);
    let mut mistakes = Vec::new();
    for (file, report) in files.iter().zip(&reports) {
        for warning in &report.warnings {
            eprintln!("{}: warning: {warning}", file.display());
        }
        for note in &report.notes {
            eprintln!("{}: info: {note}", file.display());
        }
        if report.findings.is_empty() {
            let names = report.good.join(", ");
            print(&format!("{}: good: {names}\n", file.display()))?;
        } else {
            mistakes.push(all_lines(file, &report.findings));
        }
    }
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes.join("\n")) }
}

fn render_file(options: Render) -> Result<(), String> {
    let text = read(&options.file)?;
    let rendered = render::render(&text, &options.module);
    for warning in &rendered.warnings {
        eprintln!("{}: warning: {warning}", options.file.display());
    }
    let mistakes = all_lines(&options.file, &rendered.findings);
    if !rendered.findings.is_empty() && !options.unchecked {
        return Err(mistakes);
    }
    if !mistakes.is_empty() {
        eprintln!("{mistakes}");
    }
    let Some(out) = options.out else { return print(&rendered.resource) };
    render::replace(&out, &rendered.resource)
        .map_err(|error| format!("{}: {error}", out.display()))?;
    if options.watch {
        let files = render::watch::Files { policy: options.file, module: options.module, out };
        log::start();
        return runtime()?.block_on(async {
            let stop = stop_signal()?;
            tokio::select! {
                () = render::watch::watch(&files, text) => {}
                () = stop => {}
            }
            Ok(())
        });
    }
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))
}

/// Listens for SIGTERM and SIGINT from now on; the future ends with the first.
fn stop_signal() -> Result<impl Future<Output = ()>, String> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
