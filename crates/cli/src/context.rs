//! What every command works with: the screen, whom to ask, and what to say where it is interrupted.

use std::{cell::OnceCell, cell::RefCell, path::PathBuf, rc::Rc};

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    args::Common,
    client::Client,
    failure::Failure,
    profile::{self, Told},
    screen::Screen,
    tls::Authority,
};

/// Of one run of this program.
pub struct Context {
    /// Where words go.
    pub screen: Screen,
    /// `--profile`.
    pub profile: Option<String>,
    /// `--url`, `INFINIBAY_URL`.
    pub url: Option<String>,
    ca: Option<PathBuf>,
    client: OnceCell<Client>,
    going_on: Rc<RefCell<Option<String>>>,
}

/// While it lives, something goes on that does not end with us.
pub struct GoesOn(Rc<RefCell<Option<String>>>);

impl Drop for GoesOn {
    fn drop(&mut self) {
        self.0.replace(None);
    }
}

impl Context {
    /// As the command line says.
    #[must_use]
    pub fn new(common: Common) -> Self {
        let Common { profile, url, ca, json } = common;
        let url = url.filter(|url| !url.is_empty());
        Self {
            screen: Screen::of_process(json),
            profile,
            url,
            ca: ca.filter(|path| !path.is_empty()).map(PathBuf::from),
            client: OnceCell::new(),
            going_on: Rc::default(),
        }
    }

    /// `--ca`, `INFINIBAY_CA`: what stands in that file, if one is named.
    ///
    /// # Errors
    /// Where it is no authority's.
    pub fn authority(&self) -> Result<Option<Authority>, Failure> {
        self.ca.as_deref().map(Authority::read).transpose()
    }

    /// Who asks.
    ///
    /// # Errors
    /// Where there is no profile that could be used.
    pub fn client(&self) -> Result<&Client, Failure> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let told = Told {
            profile: self.profile.clone(),
            url: self.url.clone(),
            token: std::env::var("INFINIBAY_TOKEN").ok().filter(|token| !token.is_empty()),
            ca: self.authority()?,
        };
        let chosen = profile::choose(told, || profile::read(&profile::path()?))?;
        let client = Client::new(profile::base(&chosen.url)?, chosen.token, chosen.ca.as_ref())?;
        Ok(self.client.get_or_init(|| client))
    }

    /// Notes what goes on where we are interrupted.
    #[must_use]
    pub fn goes_on(&self, what: String) -> GoesOn {
        self.going_on.replace(Some(what));
        GoesOn(Rc::clone(&self.going_on))
    }

    /// Does something until Ctrl-C, or until it is told to end by SIGTERM: what has to be put back, as a
    /// terminal that shows nothing, is put back then.
    ///
    /// # Errors
    /// Those of the work, or the interruption.
    pub async fn until_interrupted<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let listening = |kind| signal(kind).map_err(|error| Failure::Local("signals".into(), error));
        // Before the work begins: what it changes at its first step has to be put back as well.
        let (mut pressed, mut told) =
            (listening(SignalKind::interrupt())?, listening(SignalKind::terminate())?);
        tokio::pin!(work);
        tokio::select! {
            done = &mut work => done,
            _ = pressed.recv() => Err(Failure::Interrupted(self.going_on.borrow().clone())),
            _ = told.recv() => Err(Failure::Interrupted(self.going_on.borrow().clone())),
        }
    }
}
