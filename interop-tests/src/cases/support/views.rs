//! Contexts, buffers, memory and semaphores of any API behind one type each, so that a case is written
//! once and runs with every importer.

use anyhow::{Context, Result};
use gpu_interop::ash::vk;
use gpu_interop::capabilities::Capabilities;
use gpu_interop::{
    Api, BufferDesc, BufferPayload, Identity, ImagePayload, ImportError, ImportResult,
    MemoryPayload, Peer as _, ResourceDesc, SemaphoreKind, SemaphorePayload,
};

use crate::cases::support::contexts::{ApiContext, SemaphoreOf, SharedBuffer as _};
use interop_gpu::oracle::{self, Passes};
use interop_gpu::vulkan::VulkanContext;

/// A context of any API that imports payloads.
pub(crate) trait AnyContext {
    fn api(&self) -> Api;
    fn identities(&self) -> &[Identity];
    fn capabilities(&self, desc: &ResourceDesc) -> gpu_interop::Result<Capabilities>;
    fn import_buffer(&self, payload: BufferPayload) -> ImportResult<View<'_>, BufferPayload>;
    fn import_memory(&self, payload: MemoryPayload) -> ImportResult<Memory<'_>, MemoryPayload>;
    fn import_semaphore(
        &self,
        payload: SemaphorePayload,
    ) -> ImportResult<Semaphore<'_>, SemaphorePayload>;
    /// Imports an image and drops it again.
    fn try_image(&self, payload: ImagePayload) -> Result<(), ImportError<ImagePayload>>;
}

impl<C: ApiContext> AnyContext for C {
    fn api(&self) -> Api {
        self.endpoint().api()
    }

    fn identities(&self) -> &[Identity] {
        self.endpoint().identities()
    }

    fn capabilities(&self, desc: &ResourceDesc) -> gpu_interop::Result<Capabilities> {
        self.endpoint().capabilities(desc)
    }

    fn import_buffer(&self, payload: BufferPayload) -> ImportResult<View<'_>, BufferPayload> {
        Ok(View::new(self, self.endpoint().import_buffer(payload)?))
    }

    fn import_memory(&self, payload: MemoryPayload) -> ImportResult<Memory<'_>, MemoryPayload> {
        Ok(Memory(Box::new((self, self.endpoint().import_memory(payload)?))))
    }

    fn import_semaphore(
        &self,
        payload: SemaphorePayload,
    ) -> ImportResult<Semaphore<'_>, SemaphorePayload> {
        Ok(Semaphore::new(self, self.endpoint().import_semaphore(payload)?))
    }

    fn try_image(&self, payload: ImagePayload) -> Result<(), ImportError<ImagePayload>> {
        self.endpoint().import_image(payload).map(drop)
    }
}

/// Memory that one API has imported.
pub(crate) struct Memory<'a>(Box<dyn AnyMemory<'a> + 'a>);

trait AnyMemory<'a> {
    fn buffer(&self, offset: u64, desc: &BufferDesc) -> gpu_interop::Result<View<'a>>;
}

impl<'a, C: ApiContext> AnyMemory<'a> for (&'a C, C::Memory) {
    fn buffer(&self, offset: u64, desc: &BufferDesc) -> gpu_interop::Result<View<'a>> {
        Ok(View::new(self.0, C::Buffer::place(&self.1, offset, desc)?))
    }
}

impl<'a> Memory<'a> {
    pub(crate) fn buffer(&self, offset: u64, desc: &BufferDesc) -> gpu_interop::Result<View<'a>> {
        self.0.buffer(offset, desc)
    }
}

/// A shared buffer as one API sees it. Each read and write is done when it returns.
pub(crate) struct View<'a>(Box<dyn AnyBuffer<'a> + 'a>);

trait AnyBuffer<'a> {
    fn bytes(&self) -> u64;
    fn write(&mut self, data: &[u8]) -> Result<()>;
    fn read(&self) -> Result<Vec<u8>>;
    fn again(&self, desc: &BufferDesc) -> Result<View<'a>>;
}

impl<'a, C: ApiContext> AnyBuffer<'a> for (&'a C, C::Buffer) {
    fn bytes(&self) -> u64 {
        self.1.bytes()
    }

    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.0.write(&mut self.1, data)
    }

    fn read(&self) -> Result<Vec<u8>> {
        self.0.read(&self.1)
    }

    fn again(&self, desc: &BufferDesc) -> Result<View<'a>> {
        Ok(View::new(self.0, self.1.again(desc)?))
    }
}

/// A Vulkan buffer that the library does not know, of this many bytes.
impl<'a> AnyBuffer<'a> for (&'a VulkanContext, vk::Buffer, u64) {
    fn bytes(&self) -> u64 {
        self.2
    }

    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.0.upload(self.1, 0, data)
    }

    fn read(&self) -> Result<Vec<u8>> {
        self.0.download(self.1, 0, self.2)
    }

    fn again(&self, _: &BufferDesc) -> Result<View<'a>> {
        anyhow::bail!("the memory of a raw buffer is not known")
    }
}

impl<'a> View<'a> {
    pub(crate) fn new<C: ApiContext>(context: &'a C, buffer: C::Buffer) -> Self {
        Self(Box::new((context, buffer)))
    }

    /// A view of a Vulkan buffer by its handle. The buffer outlives the view.
    pub(crate) fn raw(gpu: &'a VulkanContext, buffer: vk::Buffer, bytes: u64) -> Self {
        Self(Box::new((gpu, buffer, bytes)))
    }

    /// Places another buffer at the same offset of the same memory, in the same API.
    pub(crate) fn again(&self, desc: &BufferDesc) -> Result<Self> {
        self.0.again(desc)
    }

    /// Fills the buffer with the hash of `seed`.
    pub(crate) fn write(&mut self, seed: u32) -> Result<()> {
        let data = oracle::filled(usize::try_from(self.0.bytes())?, seed);
        self.0.write(&data)
    }

    /// Checks that every byte is the hash of `seed`.
    pub(crate) fn check(&self, seed: u32) -> Result<()> {
        Ok(oracle::check(&self.0.read()?, seed, &Passes::default())?)
    }
}

/// Checks that all views are of the same memory: each in turn writes, with a seed from `first_seed` on,
/// and all of them read it.
pub(crate) fn check_all_views_agree(views: &mut [View<'_>], first_seed: u32) -> Result<()> {
    for (writer, seed) in (0..views.len()).zip(first_seed..) {
        views[writer].write(seed)?;
        for (reader, view) in views.iter().enumerate() {
            view.check(seed)
                .with_context(|| format!("view {writer} wrote, view {reader} reads"))?;
        }
    }
    Ok(())
}

/// Checks that two views are of the same memory: each sees what the other writes.
pub(crate) fn check_aliases(one: &mut View<'_>, other: &mut View<'_>) -> Result<()> {
    one.write(0xa11a5)?;
    other.check(0xa11a5).context("the second view reads what the first wrote")?;
    other.write(0x5a11a)?;
    one.check(0x5a11a).context("the first view reads what the second wrote")
}

/// A shared semaphore as one API sees it.
pub(crate) struct Semaphore<'a>(Box<dyn AnySemaphore + 'a>);

trait AnySemaphore {
    fn signal(&self, value: Option<u64>) -> Result<()>;
    fn wait(&self, value: Option<u64>) -> Result<()>;
    fn finish(&self) -> Result<()>;
}

impl<C: ApiContext> AnySemaphore for (&C, SemaphoreOf<C>) {
    fn signal(&self, value: Option<u64>) -> Result<()> {
        self.0.signal(&self.1, value)
    }

    fn wait(&self, value: Option<u64>) -> Result<()> {
        self.0.wait(&self.1, value)
    }

    fn finish(&self) -> Result<()> {
        self.0.finish()
    }
}

impl<'a> Semaphore<'a> {
    pub(crate) fn new<C: ApiContext>(context: &'a C, semaphore: SemaphoreOf<C>) -> Self {
        Self(Box::new((context, semaphore)))
    }
}

/// Checks that two views are of the same semaphore: each waits for what the other signals. The values of
/// a timeline semaphore begin at `first`.
pub(crate) fn check_signals(
    one: &Semaphore<'_>,
    other: &Semaphore<'_>,
    kind: SemaphoreKind,
    first: u64,
) -> Result<()> {
    let value = |value| (kind == SemaphoreKind::Timeline).then_some(value);
    one.0.signal(value(first))?;
    other.0.wait(value(first)).context("the second view waits for what the first signalled")?;
    other.0.signal(value(first + 1))?;
    one.0.wait(value(first + 1)).context("the first view waits for what the second signalled")?;
    // A semaphore may be destroyed only when all work that uses it is done.
    one.0.finish()?;
    other.0.finish()
}
