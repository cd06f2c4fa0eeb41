//! Which answer a request gets.

use std::time::Instant;

use hyper::{Method, StatusCode};

use super::access::{Access, COOKIE};
use super::instance::Instance;
use super::layout::{self, View};
use super::request::Request;
use super::response::{self, Response};
use super::session::Opened;
use super::state::{Page, lock};
use super::{api, events, feedback, live, masks, pictures, teach, threshold};

impl Page {
    pub fn answer(&self, request: &Request, now: Instant) -> Response {
        let access = match self.admit(request, now) {
            Ok(access) => access,
            Err(status) => return response::status(status),
        };
        let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
        let posted = request.method == Method::POST;
        match (posted, path.as_slice()) {
            (false, ["style.css"]) => return response::asset("text/css; charset=utf-8", include_str!("style.css")),
            (false, ["app.js"]) => {
                return response::asset(
                    "text/javascript; charset=utf-8",
                    concat!(include_str!("app.js"), include_str!("masks.js")),
                );
            }
            (false, ["favicon.ico"]) => return response::status(StatusCode::NO_CONTENT),
            (false, ["login"]) => return layout::login(self, None),
            (true, ["login"]) => return self.log_in(request, now),
            _ => {}
        }
        let instances = self.configs.instances();
        match (posted, path.as_slice()) {
            // A browser may be led to the log-in, a program and an image cannot.
            (_, ["api", ..]) if access == Access::None => response::status(StatusCode::UNAUTHORIZED),
            (false, [] | [_, "live" | "threshold" | "events" | "teach" | "masks"] | [_, "clip", _])
                if access == Access::None =>
            {
                response::see("/login")
            }
            _ if access == Access::None => response::status(StatusCode::UNAUTHORIZED),
            (true, ["logout"]) => {
                lock(&self.sessions).close(access.cookie());
                response::with_cookie(response::see("/login"), &format!("{COOKIE}=; Path=/; Max-Age=0"))
            }
            (false, []) => match instances.as_slice() {
                [only] => response::see(&only.url("live")),
                several => layout::home(several),
            },
            (false, ["metrics"]) => api::metrics(&instances),
            (false, ["api", "status"]) => api::status(&instances),
            (false, ["api", "events"]) => of_named(&instances, request, |it| api::events(it, request)),
            (false, ["snapshot.jpg"]) => of_named(&instances, request, pictures::snapshot),
            (_, [name, rest @ ..]) => match instances.iter().find(|instance| instance.name == *name) {
                Some(instance) => self.of_instance(request, &access, &instances, instance, rest),
                None => response::status(StatusCode::NOT_FOUND),
            },
            _ => response::status(StatusCode::NOT_FOUND),
        }
    }

    fn of_instance(
        &self,
        request: &Request,
        access: &Access,
        instances: &[Instance],
        instance: &Instance,
        path: &[&str],
    ) -> Response {
        let config = match instance.config() {
            Ok(config) => config,
            Err(e) => return response::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n")),
        };
        let view = View { page: self, request, access, instances, instance, config };
        match (request.method == Method::POST, path) {
            (false, ["live"]) => live::show(&view),
            (false, ["frame.jpg"]) => pictures::frame(&view.config),
            (false, ["map.jpg"]) => pictures::map(&view.config),
            (false, ["threshold"]) => threshold::show(&view),
            (true, ["threshold"]) => threshold::apply(&view),
            (false, ["events"]) => events::show(&view),
            (false, ["clip", id]) => pictures::clip(&view, id),
            (false, ["clip", id, name]) => pictures::of_clip(&view.config, id, name),
            (false, ["picture", name]) => pictures::of_event(&view.config, name),
            (true, ["normal"]) => feedback::normal(&view),
            (true, ["forget"]) => feedback::forget(&view),
            (true, ["reload"]) => feedback::reload(&view),
            (false, ["teach"]) => teach::show(&view),
            (false, ["teach", "report"]) => teach::report(&view),
            (false, ["teach", name]) => teach::frame(&view, name),
            (true, ["teach", action]) => teach::act(&view, action),
            (false, ["masks"]) => masks::show(&view),
            (false, ["still.jpg"]) => masks::still(&view),
            (true, ["aim"]) => masks::aim(&view),
            (true, ["masks"]) => masks::apply_masks(&view),
            (true, ["crop"]) => masks::apply_crop(&view),
            _ => response::status(StatusCode::NOT_FOUND),
        }
    }

    fn log_in(&self, request: &Request, now: Instant) -> Response {
        let opened = lock(&self.sessions).open(request.form.get("token"), now);
        match opened {
            Opened::Session(cookie) => {
                // Through a proxy with TLS the cookie stays on TLS.
                let tls = request.header("origin").is_some_and(|origin| origin.starts_with("https://"));
                let secure = if tls { "; Secure" } else { "" };
                let cookie = format!("{COOKIE}={cookie}; Path=/; HttpOnly; SameSite=Strict{secure}");
                response::with_cookie(response::see("/"), &cookie)
            }
            Opened::Wrong => layout::login(self, Some("That is not the token.")),
            Opened::Later => layout::login(self, Some("Too many wrong tokens: try again in some seconds.")),
        }
    }
}

/// Of the daemon of the parameter `instance`, or of the only one.
fn of_named(instances: &[Instance], request: &Request, answer: impl FnOnce(&Instance) -> Response) -> Response {
    let name = request.query.get("instance");
    let found = match instances {
        [only] if name.is_empty() => Some(only),
        _ => instances.iter().find(|instance| instance.name == name),
    };
    let none = || response::text(StatusCode::NOT_FOUND, "there is no such daemon: name one with ?instance=NAME\n");
    found.map_or_else(none, answer)
}
