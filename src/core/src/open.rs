//! From a file to a chain: which format each layer is in, and which layer comes below.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::buffers::Buffers;
use crate::external::{Found, listed};
use crate::{
    Backing, Chain, Context, Error, ErrorKind, ExtentSource, Image, ImageFormat, Layer, Limits,
    Location, Registry, Result, Storage, detect, open_layer,
};

/// Opens the image in `storage` and, as far as the policy of the context's opener lets it, the
/// layers below.
///
/// `format` is what the user says; without it, the format is detected. A lower layer is in the
/// format that the layer above states, or detected too, as qemu does.
///
/// # Errors
/// The formats' and the opener's; [`ErrorKind::External`] for layers that name each other in a
/// circle, [`ErrorKind::Limit`] for more than [`Limits::depth`] of them, and
/// [`ErrorKind::Corrupt`] for a parent that is not the one that the image was made from.
pub fn open_chain(
    registry: &Registry,
    format: Option<&'static dyn ImageFormat>,
    storage: Arc<dyn Storage>,
    path: &Path,
    context: &Arc<Context>,
) -> Result<Chain> {
    let mut trail = Trail::default();
    let mut layers: Vec<Layer> = Vec::new();
    let mut format = format;
    let mut next = Some(Found { storage, location: Location::new(path) });
    let mut wanted: Vec<[u8; 16]> = Vec::new();
    let mut buffers = Buffers::default();
    while let Some(Found { storage, location }) = next.take() {
        trail.step(&storage, &location, context)?;
        let path = location.path();
        let here = match format.take() {
            Some(format) => format,
            None => detect(registry, storage.as_ref())
                .and_then(|found| found.winner())
                .map_err(|error| error.in_file(path))?,
        };
        let image = Image { storage: Arc::clone(&storage), location: &location, context };
        let source = open_layer(here, image)?;
        check_identity(&wanted, source.as_ref())
            .map_err(|error| error.in_format(here.name()).in_file(path))?;
        if let Some(backing) = source.backing() {
            (next, format) = below(registry, backing, &location, context)
                .map_err(|error| error.in_format(here.name()).in_file(path))?;
            wanted.clone_from(&backing.identifiers);
        }
        let mut layer = Layer::new(source, path, here.name()).opened_from(storage);
        layer.settle(&mut buffers);
        layers.push(layer);
    }
    Chain::new(layers, Arc::clone(context))
}

type Below = (Option<Found>, Option<&'static dyn ImageFormat>);

fn below(
    registry: &Registry,
    backing: &Backing,
    location: &Location,
    context: &Context,
) -> Result<Below> {
    let Some(found) = context.opener.backing(location, backing)? else { return Ok((None, None)) };
    let format = match &backing.format {
        Some(name) => Some(registry.find(name).map_err(|error| {
            let below = found.location.path().as_os_str();
            let text = format!("its backing file {below:?}: {error}; {IGNORE_HINT}");
            Error::new(error.kind(), text)
        })?),
        None => None,
    };
    Ok((Some(found), format))
}

/// What always remains to be done about a chain that cannot be followed.
const IGNORE_HINT: &str = "--external=ignore maps this file alone";

fn check_identity(wanted: &[[u8; 16]], source: &dyn ExtentSource) -> Result<()> {
    let found = source.identifier();
    if wanted.is_empty() || found.is_some_and(|found| wanted.contains(&found)) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Corrupt, OtherParent { wanted: wanted.to_vec(), found }))
}

#[derive(Debug, thiserror::Error)]
#[error(
    "is not the parent that the image above was made from: its identifier is {}, wanted is {}",
    .found.as_ref().map_or("missing".into(), hex),
    .wanted.iter().map(hex).collect::<Vec<_>>().join(" or ")
)]
struct OtherParent {
    wanted: Vec<[u8; 16]>,
    found: Option<[u8; 16]>,
}

fn hex(bytes: &[u8; 16]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files that were passed on the way down.
#[derive(Default)]
struct Trail {
    seen: Vec<(Option<(u64, u64)>, PathBuf)>,
}

impl Trail {
    fn step(
        &mut self,
        storage: &Arc<dyn Storage>,
        location: &Location,
        context: &Context,
    ) -> Result<()> {
        let identity = storage.identity();
        let again = identity.is_some() && self.seen.iter().any(|(seen, _)| *seen == identity);
        self.seen.push((identity, location.path().to_owned()));
        if again {
            return Err(Error::new(
                ErrorKind::External,
                format!("the images name each other in a circle: {}; {IGNORE_HINT}", self.shown()),
            ));
        }
        let below = self.seen.len() as u64 - 1;
        Limits::check("the number of backing files", below, context.limits.depth as u64).map_err(
            |error| {
                let text = format!("{error} (--max-depth): {}", self.shown());
                Error::new(error.kind(), text)
            },
        )
    }

    fn shown(&self) -> String {
        listed(self.seen.iter().map(|(_, path)| path.as_os_str()), " -> ")
    }
}
