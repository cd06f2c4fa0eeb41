//! Reads requests within limits, and writes answers. One thread waits for all connections; what blocks is done beside it.

use std::io;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{StatusCode, http};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::error::Error;
use super::request::Request;
use super::response::{self, Response};
use super::state::Page;

/// Connections at once; others are told so and closed.
const MOST: usize = 64;
/// Requests that are answered at once.
const WORKERS: usize = 4;
/// Bytes of a request's line and headers.
const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// Bytes of a request's body.
const MAX_BODY: usize = 64 << 10;
/// A head, or a body, takes no longer; nor does a connection wait for its next request.
const HEAD: Duration = Duration::from_secs(10);
const BODY: Duration = Duration::from_secs(10);
/// A connection ends after its answer by then, and at any rate a while later: what is not read is not held.
const LIFE: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(60);

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Serves until the process ends.
///
/// # Errors
/// The runtime cannot be started.
pub fn serve(page: Page, listeners: Vec<TcpListener>) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(WORKERS)
        .thread_keep_alive(Duration::from_secs(2))
        .build()
        .map_err(Error::Serve)?;
    let page = Arc::new(page);
    runtime
        .block_on(async {
            let free = Arc::new(Semaphore::new(MOST));
            let mut accepting = Vec::new();
            for listener in listeners {
                listener.set_nonblocking(true)?;
                let listener = tokio::net::TcpListener::from_std(listener)?;
                accepting.push(tokio::spawn(accept(Arc::clone(&page), listener, Arc::clone(&free))));
            }
            for accepting in accepting {
                accepting.await.map_err(io::Error::other)?;
            }
            Ok(())
        })
        .map_err(Error::Serve)
}

async fn accept(page: Arc<Page>, listener: tokio::net::TcpListener, free: Arc<Semaphore>) {
    loop {
        let (stream, local) = match listener.accept().await {
            Ok((stream, _)) => match stream.local_addr() {
                Ok(local) => (stream, local.ip().to_canonical()),
                Err(_) => continue,
            },
            // No descriptor is free: the connection waits.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        match Arc::clone(&free).try_acquire_owned() {
            Ok(permit) => drop(tokio::spawn(connection(Arc::clone(&page), stream, local, Some(permit)))),
            // What a fresh connection takes without waiting.
            Err(_) => drop(stream.try_write(FULL)),
        }
    }
}

/// Answers the requests of one connection until it ends.
pub async fn connection<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    page: Arc<Page>,
    stream: T,
    local: IpAddr,
    _permit: Option<OwnedSemaphorePermit>,
) {
    let service = service_fn(move |request| answer(Arc::clone(&page), request, local));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    if timeout(LIFE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(GRACE, connection).await;
    }
}

async fn answer(page: Arc<Page>, request: http::Request<Incoming>, local: IpAddr) -> Result<Response, io::Error> {
    let (head, body) = request.into_parts();
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Ok(response::status(StatusCode::PAYLOAD_TOO_LARGE));
    }
    let body = match timeout(BODY, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return Ok(response::status(StatusCode::PAYLOAD_TOO_LARGE)),
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    };
    let work = move || match Request::parse(&head, &body, local) {
        Ok(request) => page.answer(&request, Instant::now()),
        Err(status) => response::status(status),
    };
    Ok(tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| response::status(StatusCode::INTERNAL_SERVER_ERROR)))
}

/// What the bytes of one connection are answered with.
///
/// # Errors
/// There are no sockets or threads to be had.
#[cfg(feature = "internals")]
pub fn answers(page: &Arc<Page>, bytes: &[u8]) -> io::Result<Vec<u8>> {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    let (mut client, server) = UnixStream::pair()?;
    server.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    std::thread::scope(|scope| {
        let mut writer = client.try_clone()?;
        scope.spawn(move || {
            // A server that has had enough closes before.
            let _ = writer.write_all(bytes).and_then(|()| writer.shutdown(std::net::Shutdown::Write));
        });
        let reader = scope.spawn(move || {
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).map(|_| answer)
        });
        let local = IpAddr::from([127, 0, 0, 1]);
        runtime.block_on(async {
            let server = tokio::net::UnixStream::from_std(server)?;
            connection(Arc::clone(page), server, local, None).await;
            Ok::<_, io::Error>(())
        })?;
        reader.join().map_err(|_| io::Error::other("the reader panicked"))?
    })
}
