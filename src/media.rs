//! Media: disks and installation discs, brought in from a URL or a path.
//!
//! What comes from outside is a stranger's from its first byte: where it comes from is judged
//! (addresses, redirects, paths), how much and how slowly it comes is bounded, and what it is gets
//! looked at before anybody can use it. A row is written before a byte is, so that a crash costs
//! the last second and leaves nothing that nobody knows of.

mod address;
mod check;
mod detect;
mod disc;
mod extract;
mod failure;
mod fetch;
mod found;
mod intake;
mod local;
mod place;
mod request;
mod run;
mod sink;
mod work;

pub use extract::{BootPair, DiscError, MAX_INITRD, MAX_KERNEL, extract};
pub use found::{FindError, Found, find_discs};
pub use request::ImportMedium;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::Utc;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    access::{Action, Actor, Denied, authorize},
    config::MediaConfig,
    images::Images,
    store::{MediaBounds, MediumUses, NewMedium, NotAsked, Page, PageOf, Store, StoreError},
    vm::{HostId, Medium, MediumId, MediumSource, MediumState, OsFamily, ResourceName, truncate_to_micros},
};
use failure::Failure;
use fetch::Fetcher;
use place::Places;

/// Media of one host at most: as many as the image library looks at.
const MAX_MEDIA: u32 = 1000;

/// Takes requests, and carries them out. Clones share everything.
#[derive(Clone)]
pub struct Media {
    shared: Arc<Shared>,
}

struct Shared {
    host: HostId,
    config: MediaConfig,
    places: Places,
    store: Store,
    images: Images,
    fetcher: Fetcher,
    /// Families that VMs can be built of.
    families: Vec<OsFamily>,
    wake: Notify,
    /// What is worked on.
    under_way: Mutex<HashMap<MediumId, CancellationToken>>,
}

/// Why a request was refused. Each has a stable code at the API.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// `INVALID_INPUT`, with the field.
    #[error("{field}: {reason}")]
    Invalid {
        /// The input's field, as the API names it.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// `FORBIDDEN`.
    #[error("{0}")]
    Forbidden(&'static str),
    /// `PATH_NOT_ALLOWED`.
    #[error("{0}")]
    PathNotAllowed(String),
    /// `NAME_TAKEN`.
    #[error("a medium or an image named {0:?} exists; choose another name, or delete it first")]
    NameTaken(ResourceName),
    /// `MEDIUM_NOT_FOUND`.
    #[error("there is no medium {0:?}")]
    NotFound(String),
    /// `MEDIUM_IN_USE`.
    #[error("{name} is used by {} VM(s), among them {}", uses.count, uses.some.join(", "))]
    InUse {
        /// The medium.
        name: ResourceName,
        /// Who uses it.
        uses: MediumUses,
    },
    /// `WRONG_STATE`.
    #[error("{0}")]
    WrongState(&'static str),
    /// `QUEUE_FULL`.
    #[error("there are {0} already; wait for some to end, or delete some")]
    TooMany(u32),
    /// This host's disk could not be asked. `INTERNAL`, with a correlation id.
    #[error("looking at the directories")]
    Disk(#[source] std::io::Error),
    /// The database could not be asked.
    #[error("the database failed")]
    Store(#[from] StoreError),
}

impl Media {
    /// The media of a host: discs in `discs`, disks in the library's directory `images_dir`.
    /// Nothing is done before [`Media::run`].
    #[must_use]
    pub fn new(
        host: HostId,
        config: MediaConfig,
        discs: PathBuf,
        images_dir: PathBuf,
        store: Store,
        images: Images,
        buildable: impl Fn(OsFamily) -> bool,
    ) -> Self {
        let fetcher = Fetcher::new(config.clone(), fetch::system_resolver());
        let shared = Shared {
            host,
            config,
            places: Places { discs, images: images_dir },
            store,
            images,
            fetcher,
            families: OsFamily::ALL.into_iter().filter(|family| buildable(*family)).collect(),
            wake: Notify::new(),
            under_way: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Accepts a medium: stored before this returns, brought in afterwards. The same request again
    /// gives what there is, and tries anew what was given up.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub async fn import(&self, actor: &Actor, request: ImportMedium) -> Result<Medium, MediaError> {
        allowed(actor, Action::ManageMedia)?;
        let kind = request.kind;
        let parsed = request.parse()?;
        if let Some(disk) = &parsed.disk
            && !self.shared.families.contains(&disk.os_family)
        {
            let reason = format!("there is no domain template for {} VMs yet", disk.os_family);
            return Err(MediaError::Invalid { field: "osFamily", reason });
        }
        if let MediumSource::Path(path) = &parsed.source {
            let (path, dirs) = (path.clone(), self.config().import_dirs.0.clone());
            let looked = tokio::task::spawn_blocking(move || local::open(&path, &dirs).map(drop)).await;
            let looked = looked.map_err(|died| MediaError::Disk(std::io::Error::other(died)))?;
            looked.map_err(|failure: Failure| MediaError::PathNotAllowed(failure.message))?;
        }
        let known = self.store().medium(self.shared.host, &parsed.name).await?;
        if known.is_none() {
            let (places, name) = (self.places().clone(), parsed.name.clone());
            let looked = tokio::task::spawn_blocking(move || places.is_taken(kind, &name)).await;
            let taken = looked.map_err(std::io::Error::other).and_then(|taken| taken);
            if taken.map_err(MediaError::Disk)? {
                return Err(MediaError::NameTaken(parsed.name));
            }
        }
        let new = NewMedium {
            id: MediumId::generate(),
            host: self.shared.host,
            name: parsed.name,
            kind,
            source: parsed.source,
            expected_sha256: parsed.sha256,
            disk: parsed.disk,
            by: actor.user,
        };
        let bounds = MediaBounds { open: self.config().max_open, all: MAX_MEDIA };
        let asked = self.store().ask_for_medium(&new, bounds, truncate_to_micros(Utc::now())).await;
        let medium = asked.map_err(|refused| told(refused, &new.name))?;
        self.shared.wake.notify_one();
        Ok(medium)
    }

    /// Gives an import up and removes what was read of it.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub async fn cancel(&self, actor: &Actor, name: &str) -> Result<Medium, MediaError> {
        allowed(actor, Action::ManageMedia)?;
        let name = existing(name)?;
        let now = truncate_to_micros(Utc::now());
        let asked = self.store().cancel_medium(self.shared.host, &name, actor.user, now).await;
        let medium = asked.map_err(|refused| told(refused, &name))?;
        if let Some(work) = self.under_way().get(&medium.id) {
            work.cancel();
        }
        self.shared.wake.notify_one();
        Ok(medium)
    }

    /// Deletes a medium that no VM uses.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub async fn delete(&self, actor: &Actor, name: &str) -> Result<Medium, MediaError> {
        allowed(actor, Action::ManageMedia)?;
        let name = existing(name)?;
        let now = truncate_to_micros(Utc::now());
        let file = self.disc(&name).display().to_string();
        let asked = self.store().delete_medium(self.shared.host, &name, &file, actor.user, now).await;
        let medium = asked.map_err(|refused| told(refused, &name))?;
        self.shared.wake.notify_one();
        Ok(medium)
    }

    /// Media, newest first; for who may not manage them, those that are ready.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub async fn list(&self, actor: &Actor, page: Page) -> Result<PageOf<Medium>, MediaError> {
        allowed(actor, Action::ViewImages)?;
        let ready_only = authorize(actor, Action::ManageMedia).is_err();
        Ok(self.store().media(self.shared.host, ready_only, page).await?)
    }

    /// One medium; none, where there is none that the actor may see.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub async fn get(&self, actor: &Actor, name: &str) -> Result<Option<Medium>, MediaError> {
        allowed(actor, Action::ViewImages)?;
        // What is no name names nothing.
        let Ok(name) = name.parse() else { return Ok(None) };
        let found = self.store().medium(self.shared.host, &name).await?;
        let all = authorize(actor, Action::ManageMedia).is_ok();
        Ok(found.filter(|medium| all || medium.state == MediumState::Ready))
    }

    /// The VMs that use a medium.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub async fn uses(&self, medium: &Medium) -> Result<MediumUses, MediaError> {
        let file = self.disc(&medium.name).display().to_string();
        Ok(self.store().medium_uses(medium, &file).await?)
    }

    /// Where a ready installation disc of that name is: the path by which a VM names it.
    #[must_use]
    pub fn disc(&self, name: &ResourceName) -> PathBuf {
        self.places().disc(name)
    }

    fn store(&self) -> &Store {
        &self.shared.store
    }

    fn images(&self) -> &Images {
        &self.shared.images
    }

    fn config(&self) -> &MediaConfig {
        &self.shared.config
    }

    fn places(&self) -> &Places {
        &self.shared.places
    }

    fn fetcher(&self) -> &Fetcher {
        &self.shared.fetcher
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<MediumId, CancellationToken>> {
        self.shared.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn allowed(actor: &Actor, action: Action) -> Result<(), MediaError> {
    authorize(actor, action).map_err(|denied| match denied {
        Denied::NotFound => MediaError::Forbidden("this is not for you"),
        Denied::Forbidden(why) => MediaError::Forbidden(why),
    })
}

/// The name of something that may be there.
fn existing(name: &str) -> Result<ResourceName, MediaError> {
    name.parse()
        .map_err(|_| MediaError::NotFound(name.chars().filter(|c| !c.is_control()).take(128).collect()))
}

fn told(refused: NotAsked, name: &ResourceName) -> MediaError {
    match refused {
        NotAsked::NameTaken => MediaError::NameTaken(name.clone()),
        NotAsked::NotFound => MediaError::NotFound(name.to_string()),
        NotAsked::TooMany(bound) => MediaError::TooMany(bound),
        NotAsked::InUse(uses) => MediaError::InUse { name: name.clone(), uses },
        NotAsked::WrongState(state) => MediaError::WrongState(match state {
            MediumState::Queued | MediumState::Downloading => "it is being imported; cancel that first",
            MediumState::Checking => "it is being put in its place; ask again in a moment",
            MediumState::Ready => "it is ready: there is nothing to cancel; delete it",
            MediumState::Failed => {
                "what was left of an earlier attempt is being removed; ask again in a moment"
            }
            MediumState::Deleting => "it is being deleted",
        }),
        NotAsked::Store(error) => MediaError::Store(error),
    }
}
