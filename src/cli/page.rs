//! `page`: the web page.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;

use super::common;
use super::error::{Error, exit};
use crate::config;
use crate::fs;
use crate::page::{Configs, Page, Token, listen, server};

/// The name of systemd's credential.
const CREDENTIAL: &str = "page-token";

/// Serves a web page that shows what the daemons see, helps to choose a threshold, and goes through their events.
///
/// On an address of this machine alone (127.0.0.1) it asks for no password: who may use this machine may use it. On any
/// other address it wants a token, a file with at least 20 random characters in its first line. It speaks plain HTTP: for
/// TLS put a reverse proxy in front of it, or reach it through an SSH tunnel.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  outlierd page
  outlierd page -c door.toml --listen 0.0.0.0:8788 --token-file page-token
  ssh -L 8788:127.0.0.1:8788 pi@door   # then open http://127.0.0.1:8788/")]
pub struct Args {
    /// Address and port; not used where systemd has passed a socket
    #[arg(long, value_name = "ADDRESS", default_value = listen::DEFAULT)]
    listen: SocketAddr,
    /// Config files of the daemons [default: all *.toml in /etc/outlierd]
    #[arg(short, long, value_name = "FILE", num_args = 1..)]
    config: Vec<PathBuf>,
    /// File whose first line opens the page [default: systemd's credential page-token, if there is one]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Name that browsers reach it by, besides its address: that of a reverse proxy, or this machine's
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
}

pub fn run(args: Args) -> Result<ExitCode, Error> {
    let configs = match args.config.is_empty() {
        true => Configs::Folder(fs::folder_of(config::DEFAULT_PATH.as_ref()).to_owned()),
        false => Configs::Files(args.config),
    };
    let token = args.token_file.or_else(|| fs::credential(CREDENTIAL));
    let token = token.map(|path| Token::read(&path)).transpose()?;
    let guarded = token.is_some();
    let listeners = listen::listen(args.listen)?;
    let addresses: Vec<SocketAddr> = listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<_, _>>()
        .map_err(|e| Error::new(exit::UNAVAILABLE, format!("cannot tell where the page listens: {e}")))?;
    let page = Page::new(configs, args.host, token, &addresses)?;
    for address in addresses {
        let how = if guarded { "with the token" } else { "for this machine's users, without a password" };
        common::print(format!("http://{address}/ {how}"))?;
    }
    server::serve(page, listeners)?;
    Ok(ExitCode::SUCCESS)
}
