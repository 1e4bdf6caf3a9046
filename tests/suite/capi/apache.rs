//! Apache httpd with the module `examples/c/mod_brigade.c`. `BRIGADE_TEST_APACHE` names a folder with Debian's packages unpacked in
//! it, or `/` where they are installed; `.ci/run` fetches them. Without it the tests are skipped.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use bucket_brigade::Catalog;
use rustix::process::{Pid, Signal, kill_process};

use crate::capi::programs::{Host, Link, WARNINGS, ended_well, manifest};
use crate::support::World;
use crate::support::oracle::check_idle;
use crate::support::server::{PlainAnswer, connect, exchange, exchange_on};

/// The children of the prefork MPM.
const CHILDREN: usize = 3;
const PREFORK: &str = "mpm_prefork";
const EVENT: &str = "mpm_event";

fn packages() -> Option<PathBuf> {
    let found = std::env::var_os("BRIGADE_TEST_APACHE").map(PathBuf::from);
    if found.is_none() {
        eprintln!("skipped: BRIGADE_TEST_APACHE names no folder with Apache httpd");
    }
    found.map(|folder| fs::canonicalize(folder).expect("the folder exists"))
}

/// Builds the module.
fn build(packages: &Path, link: Link, into: &Path) -> PathBuf {
    let module = into.join(format!("mod_brigade-{link:?}.so"));
    let mut command = Command::new("cc");
    command.arg("-std=c11").args(WARNINGS).args(["-O1", "-g", "-shared", "-fPIC", "-Wl,--exclude-libs,ALL"]);
    command.args(["-DLINUX", "-D_GNU_SOURCE", "-I"]).arg(manifest().join("src/capi"));
    for folder in ["apr-1.0", "apache2"] {
        command.arg("-I").arg(packages.join("usr/include").join(folder));
    }
    command.arg(manifest().join("examples/c/mod_brigade.c")).arg("-o").arg(&module).args(link.arguments());
    ended_well(&command.output().unwrap());
    module
}

/// Lets the children pass through a folder: httpd that root has started runs them as `nobody`.
fn open_to_others(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
}

/// The command that starts httpd with this configuration, or looks at it.
fn httpd(packages: &Path, folder: &Path, mpm: &str, module: &Path, lines: &str) -> Command {
    for made in [folder, &folder.join("docs")] {
        open_to_others(made);
    }
    let modules = packages.join("usr/lib/apache2/modules");
    let (shown, modules) = (folder.display(), modules.display());
    let user = if rustix::process::geteuid().is_root() { "User nobody\nGroup nogroup\n" } else { "" };
    let children = if mpm == PREFORK { CHILDREN } else { 1 };
    let configuration = format!(
        "ServerRoot \"{shown}\"\nServerName 127.0.0.1\n{user}PidFile \"{shown}/pid\"\nDefaultRuntimeDir \"{shown}\"\n\
         ErrorLog \"{shown}/log\"\nDocumentRoot \"{shown}/docs\"\n\
         LoadModule mpm_module \"{modules}/mod_{mpm}.so\"\nLoadModule authz_core_module \"{modules}/mod_authz_core.so\"\n\
         LoadModule brigade_module \"{}\"\nStartServers {children}\nKeepAlive On\nKeepAliveTimeout 60\n\
         MaxKeepAliveRequests 0\nAllowEncodedSlashes On\n{lines}\n",
        module.display()
    );
    let configuration = configuration.replace("mpm_module", &format!("{mpm}_module"));
    fs::write(folder.join("conf"), configuration).unwrap();
    let libraries: Vec<String> = fs::read_dir(packages.join("usr/lib"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|folder| folder.join("libapr-1.so.0").exists())
        .map(|folder| folder.display().to_string())
        .collect();
    let mut command = Command::new(packages.join("usr/sbin/apache2"));
    command.env_clear().env("LD_LIBRARY_PATH", libraries.join(":"));
    command.arg("-f").arg(folder.join("conf"));
    command
}

/// httpd under test. At its end it signals its process group, so it has one of its own.
struct Apache {
    child: Child,
    place: String,
    log: PathBuf,
}

impl Apache {
    fn start(packages: &Path, host: &Host, mpm: &str, module: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let catalog = host.catalog().display().to_string();
        let limit = if mpm == PREFORK { CHILDREN } else { 8 };
        let threads = if mpm == PREFORK { "" } else { "ThreadsPerChild 8" };
        let lines = format!(
            "Listen 127.0.0.1:{port}\n{threads}\nMaxRequestWorkers {limit}\nBrigadeCatalog \"{catalog}\"\n\
             <Location \"/maps/\">\nSetHandler brigade\n</Location>\n\
             <Location \"/files\">\nSetHandler brigade\nBrigadeCatalog \"{catalog}\"\n</Location>"
        );
        let folder = host.path(mpm);
        let mut command = httpd(packages, &folder, mpm, module, &lines);
        command.arg("-DFOREGROUND").process_group(0).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let apache = Self { child, place: format!("127.0.0.1:{port}"), log: folder.join("log") };
        apache.wait_for("resuming normal operations", 1);
        apache
    }

    /// Waits for this many lines of the log that have this in them.
    fn wait_for(&self, text: &str, count: usize) {
        while self.logged().matches(text).count() < count {
            std::thread::yield_now();
        }
    }

    fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn request(&self, method: &str, path: &str) -> Vec<u8> {
        format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.place).into_bytes()
    }

    fn ask(&self, method: &str, path: &str) -> PlainAnswer {
        exchange(&self.place, &self.request(method, path)).unwrap()
    }

    /// Asks until this is the status. Each child looks for a newer catalog once a second.
    fn wait_for_status(&self, path: &str, status: u16) {
        while self.ask("GET", path).0 != status {
            std::thread::yield_now();
        }
    }

    /// As many connections as there are children, each of which serves one at a time, ask until this is the status.
    fn wait_for_each_child(&self, path: &str, status: u16) {
        let mut held = Vec::new();
        while held.len() < CHILDREN {
            let mut connection = connect(&self.place).unwrap();
            // httpd closes a connection after a 503, and keeps it after the others.
            loop {
                let (got, headers, _) = exchange_on(&mut connection, &self.request("GET", path)).unwrap();
                if got == status {
                    held.push(connection);
                    break;
                }
                if headers.get("connection").is_some_and(|value| value == "close") {
                    break;
                }
                std::thread::yield_now();
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it by SIGTERM, and returns what it has logged.
    fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        let status = self.child.wait().unwrap();
        let log = self.logged();
        assert!(status.success(), "{status}: {log}");
        assert!(!log.contains("exit signal"), "a child has crashed: {log}");
        log
    }
}

impl Drop for Apache {
    /// A test that fails leaves no httpd behind. Its children end with it.
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

/// A tree with names of all kinds, whose catalog other users can reach.
fn tree() -> Host {
    let host = Host::new(World::new());
    let folder = host.world.root();
    for folder in [host.folder.path(), folder.parent().unwrap(), host.catalog().parent().unwrap()] {
        open_to_others(folder);
    }
    host.world.write("a b/100%+ü.txt", "odd");
    host.world.let_files_settle();
    host
}

fn check_answers(apache: &Apache, host: &Host) {
    let catalog = Catalog::open(host.catalog()).unwrap();
    for (path, key) in [
        ("/files/index.html", "index.html"),
        ("/files/maps/a.pak?x=1", "maps/a.pak"),
        ("/files/maps%2Fa.pak", "maps/a.pak"),
        ("/files/x/../maps/./a.pak", "maps/a.pak"),
        ("/files/a%20b/100%25+%C3%BC.txt", "a b/100%+ü.txt"),
        // Outside of the location that has its own catalog, the key is the whole path.
        ("/maps/b.pak", "maps/b.pak"),
    ] {
        let url = catalog.get(key).unwrap().url;
        for method in ["GET", "HEAD"] {
            let (status, headers, body) = apache.ask(method, path);
            assert_eq!(
                status,
                302,
                "{method} {path}: {}\n{}",
                String::from_utf8_lossy(&body),
                apache.logged()
            );
            assert_eq!(headers["location"], url, "{method} {path}");
            assert_eq!(headers["cache-control"], "no-store");
        }
    }
    for path in ["/files/nothing", "/files/", "/files", "/files/maps", "/maps/a", "/index.html"] {
        assert_eq!(apache.ask("GET", path).0, 404, "{path}");
    }
    let (status, headers, _) = apache.ask("POST", "/files/index.html");
    assert!(status == 405 && headers["allow"].contains("GET"), "{status} {headers:?}");
}

/// Publishes something new while four clients ask: no request fails, and every child answers with it.
fn publish_under_load(apache: &Apache, host: &Host) {
    let (done, site) = (AtomicBool::new(false), host.world.orchestrator());
    std::thread::scope(|scope| {
        let ask = || {
            let mut asked = 0;
            while !done.load(Ordering::Relaxed) || asked == 0 {
                assert_eq!(apache.ask("GET", "/files/maps/a.pak").0, 302);
                asked += 1;
            }
        };
        let clients = [(); 4].map(|()| scope.spawn(ask));
        let end = crate::support::SetAtEnd(&done);
        for round in 0..3 {
            host.world.write(&format!("new{round}.html"), "new");
            site.rescan().unwrap();
            apache.wait_for_status(&format!("/files/new{round}.html"), 302);
        }
        drop(end);
        for client in clients {
            client.join().unwrap();
        }
    });
    apache.wait_for_each_child("/files/new2.html", 302);
}

/// Something else stands where the catalog was: the children go on with what they have, say so, and take the next good one.
fn outlive_a_file_that_is_no_catalog(apache: &Apache, host: &Host) {
    let other = host.path("other");
    fs::write(&other, "no catalog").unwrap();
    fs::set_permissions(&other, Permissions::from_mode(0o444)).unwrap();
    fs::rename(&other, host.catalog()).unwrap();
    while !apache.logged().contains("it is not a catalog") {
        assert_eq!(apache.ask("GET", "/files/index.html").0, 302);
    }
    host.world.write("mended.html", "mended");
    host.world.orchestrator().rescan().unwrap();
    apache.wait_for_each_child("/files/mended.html", 302);
}

fn serve(mpm: &str, link: Link) {
    let Some(packages) = packages() else { return };
    let host = tree();
    let module = build(&packages, link, host.folder.path());
    let apache = Apache::start(&packages, &host, mpm, &module);
    let (status, headers, _) = apache.ask("GET", "/files/index.html");
    assert_eq!((status, headers["retry-after"].as_str()), (503, "1"));
    host.world.orchestrator().rescan().unwrap();
    apache.wait_for_each_child("/files/index.html", 302);
    check_answers(&apache, &host);
    publish_under_load(&apache, &host);
    outlive_a_file_that_is_no_catalog(&apache, &host);
    // The configuration is read anew, and the module loaded anew.
    apache.signal(Signal::HUP);
    apache.wait_for("resuming normal operations", 2);
    apache.wait_for_each_child("/files/index.html", 302);
    check_answers(&apache, &host);
    let log = apache.stop();
    assert!(log.contains("there is no catalog yet"), "{log}");
    check_idle(&host.world, &host.world.orchestrator());
}

#[test]
fn httpd_with_children_redirects_from_the_catalog() {
    serve(PREFORK, Link::Archive);
}

#[test]
fn httpd_with_threads_redirects_from_the_catalog() {
    serve(EVENT, Link::Shared);
}

#[test]
fn directive_stands_where_keys_begin() {
    let Some(packages) = packages() else { return };
    let host = tree();
    let module = build(&packages, Link::Archive, host.folder.path());
    for (section, accepted) in [
        ("<Location \"/files\">", true),
        ("<Location \"/files/*\">", false),
        ("<Location ~ \"/files\">", false),
        ("<LocationMatch \"/files\">", false),
        ("<Directory \"/files\">", false),
    ] {
        let end = section[1..].split(' ').next().unwrap();
        let lines = format!("Listen 127.0.0.1:1\n{section}\nBrigadeCatalog a\n</{end}>");
        let mut command = httpd(&packages, &host.path("conf"), PREFORK, &module, &lines);
        let output = command.arg("-t").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.success(), accepted, "{section}: {said}");
        assert!(accepted || said.contains("BrigadeCatalog"), "{section}: {said}");
    }
}
