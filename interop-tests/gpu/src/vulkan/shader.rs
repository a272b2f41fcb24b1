//! Shader modules, and the layout and pipeline of compute kernels.

use anyhow::{Context, Result};
use gpu_interop::ash::{self, vk};
use gpu_interop::headless::Vulkan;

/// A shader module, needed until the pipelines are created.
#[derive(Debug)]
pub struct ShaderModule<'a> {
    vulkan: &'a Vulkan,
    handle: vk::ShaderModule,
}

impl<'a> ShaderModule<'a> {
    /// Loads `spirv`, one of the files in `shaders/`.
    ///
    /// # Errors
    /// If it is not SPIR-V, or if the driver fails.
    pub fn new(vulkan: &'a Vulkan, spirv: &[u8]) -> Result<Self> {
        let code = ash::util::read_spv(&mut std::io::Cursor::new(spirv)).context("SPIR-V")?;
        let info = vk::ShaderModuleCreateInfo::default().code(&code);
        // SAFETY: valid SPIR-V: it was checked when it was compiled.
        let handle = unsafe { vulkan.device().create_shader_module(&info, None) }?;
        Ok(Self { vulkan, handle })
    }

    /// The module as a stage of a pipeline.
    pub fn stage(&self, stage: vk::ShaderStageFlags) -> vk::PipelineShaderStageCreateInfo<'static> {
        vk::PipelineShaderStageCreateInfo::default().stage(stage).module(self.handle).name(c"main")
    }

    /// A compute pipeline of `layout`, whose bindings and push constants are the shader's. The caller
    /// destroys it.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn compute_pipeline(&self, layout: vk::PipelineLayout) -> Result<vk::Pipeline> {
        let stage = self.stage(vk::ShaderStageFlags::COMPUTE);
        let info = vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout);
        let none = vk::PipelineCache::null();
        // SAFETY: the layout has the shader's bindings and push constants, as the caller promises.
        let made = unsafe { self.vulkan.device().create_compute_pipelines(none, &[info], None) };
        made.map(|pipelines| pipelines[0]).map_err(|(_, result)| result.into())
    }
}

impl Drop for ShaderModule<'_> {
    fn drop(&mut self) {
        // SAFETY: owned here alone, and not needed once the pipelines are made.
        unsafe { self.vulkan.device().destroy_shader_module(self.handle, None) };
    }
}

/// The bindings and push constants of compute kernels.
#[derive(Debug)]
pub struct ComputeLayout {
    vulkan: Vulkan,
    /// The layout of the only descriptor set.
    pub set: vk::DescriptorSetLayout,
    /// The pipeline layout: that set and the push constants.
    pub pipeline: vk::PipelineLayout,
}

impl ComputeLayout {
    /// A layout whose binding `i` is of type `bindings[i]`, with `push_bytes` bytes of push constants.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn new(vulkan: &Vulkan, bindings: &[vk::DescriptorType], push_bytes: u32) -> Result<Self> {
        // Every vkDestroy call ignores null handles, so Drop cleans up after a failure half-way.
        let (set, pipeline) = Default::default();
        let mut made = Self { vulkan: vulkan.clone(), set, pipeline };
        let stage_flags = vk::ShaderStageFlags::COMPUTE;
        let binding = |(binding, &ty)| {
            let binding = vk::DescriptorSetLayoutBinding::default().binding(binding);
            binding.descriptor_type(ty).descriptor_count(1).stage_flags(stage_flags)
        };
        let bindings: Vec<_> = (0..).zip(bindings).map(binding).collect();
        let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        // SAFETY: a valid device; the array outlives the call.
        made.set = unsafe { vulkan.device().create_descriptor_set_layout(&info, None) }?;
        let sets = [made.set];
        let constants = [vk::PushConstantRange { stage_flags, offset: 0, size: push_bytes }];
        let info = vk::PipelineLayoutCreateInfo::default()
            .set_layouts(&sets)
            .push_constant_ranges(&constants);
        // SAFETY: as above.
        made.pipeline = unsafe { vulkan.device().create_pipeline_layout(&info, None) }?;
        Ok(made)
    }

    /// The pipeline of `spirv`, which has these bindings and push constants. The caller destroys it.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn pipeline_of(&self, spirv: &[u8]) -> Result<vk::Pipeline> {
        ShaderModule::new(&self.vulkan, spirv)?.compute_pipeline(self.pipeline)
    }
}

impl Drop for ComputeLayout {
    fn drop(&mut self) {
        let device = self.vulkan.device();
        // SAFETY: both owned here alone, and null if never created; the code that submits work with them waits before dropping them.
        unsafe {
            device.destroy_pipeline_layout(self.pipeline, None);
            device.destroy_descriptor_set_layout(self.set, None);
        }
    }
}
