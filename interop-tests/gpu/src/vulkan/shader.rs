//! Shaders: their bindings, descriptor sets, compute and graphics pipelines.

use std::fmt;
use std::slice;

use anyhow::{Context, Result};
use gpu_interop::ash::{self, vk};
use gpu_interop::headless::Vulkan;

use crate::kernel::{Window, windows};

/// The bindings and push constants of shaders, with the descriptor sets and pipelines made of them. All are
/// destroyed with it; the code that submits work with them waits before.
pub struct ShaderLayout {
    vulkan: Vulkan,
    stages: vk::ShaderStageFlags,
    bindings: Vec<vk::DescriptorType>,
    set: vk::DescriptorSetLayout,
    layout: vk::PipelineLayout,
    descriptors: vk::DescriptorPool,
    pipelines: Vec<vk::Pipeline>,
}

/// What shaders read or write at a binding.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations)] // ash's types have none here
pub enum Resource {
    /// A range of a buffer.
    Buffer(vk::DescriptorBufferInfo),
    /// A view of an image, in its layout when the shader runs, and a sampler, or null if the binding has none.
    Image(vk::DescriptorImageInfo),
}

impl Resource {
    /// A whole buffer.
    pub fn whole(buffer: vk::Buffer) -> Self {
        Self::Buffer(vk::DescriptorBufferInfo { buffer, offset: 0, range: vk::WHOLE_SIZE })
    }
}

/// A storage buffer, bound window by window.
#[derive(Debug, Default)]
pub struct Bound {
    /// Each window with its descriptor set.
    pub sets: Vec<(Window, vk::DescriptorSet)>,
}

/// The fixed functions of a graphics pipeline that draws triangles, without culling, to attachments of one
/// sample count. Viewport and scissor are dynamic.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations)] // as above
pub struct Graphics<'a> {
    /// The vertex shader, as SPIR-V.
    pub vertex: &'a [u8],
    /// The fragment shader, as SPIR-V.
    pub fragment: &'a [u8],
    /// Vertex buffers and their attributes.
    pub input: vk::PipelineVertexInputStateCreateInfo<'a>,
    /// Samples per pixel.
    pub samples: u32,
    /// The samples that are written, one bit each.
    pub sample_mask: u32,
    /// The comparison of the depth test, which also writes depth; `None` without depth.
    pub depth: Option<vk::CompareOp>,
    /// How the colour attachment is blended; `None` without one.
    pub colour: Option<vk::PipelineColorBlendAttachmentState>,
    /// The render pass, of whose subpass 0 these are the attachments.
    pub render_pass: vk::RenderPass,
}

impl ShaderLayout {
    /// Creates a layout whose binding `i` is of type `bindings[i]`, with `push_bytes` bytes of push constants, both
    /// visible to `stages`, and room for `max_sets` descriptor sets.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn new(
        vulkan: &Vulkan,
        stages: vk::ShaderStageFlags,
        bindings: &[vk::DescriptorType],
        push_bytes: u32,
        max_sets: u32,
    ) -> Result<Self> {
        // Every vkDestroy call ignores null handles, so Drop cleans up after a failure half-way.
        let (set, layout, descriptors) = Default::default();
        let (vulkan, bindings, pipelines) = (vulkan.clone(), bindings.to_vec(), Vec::new());
        let mut made = Self { vulkan, stages, bindings, set, layout, descriptors, pipelines };
        let binding = |(binding, &ty)| {
            let binding = vk::DescriptorSetLayoutBinding::default().binding(binding);
            binding.descriptor_type(ty).descriptor_count(1).stage_flags(stages)
        };
        let bindings: Vec<_> = (0..).zip(&made.bindings).map(binding).collect();
        let set = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        let size = |&ty| vk::DescriptorPoolSize { ty, descriptor_count: max_sets };
        let sizes: Vec<_> = made.bindings.iter().map(size).collect();
        let pool = vk::DescriptorPoolCreateInfo::default()
            .flags(vk::DescriptorPoolCreateFlags::FREE_DESCRIPTOR_SET)
            .max_sets(max_sets)
            .pool_sizes(&sizes);
        let range = [vk::PushConstantRange { stage_flags: stages, offset: 0, size: push_bytes }];
        let ranges = if push_bytes > 0 { &range[..] } else { &[] };
        let device = made.vulkan.device();
        // SAFETY: a valid device; the arrays outlive the calls.
        unsafe {
            made.set = device.create_descriptor_set_layout(&set, None)?;
            made.descriptors = device.create_descriptor_pool(&pool, None)?;
            let info = vk::PipelineLayoutCreateInfo::default()
                .set_layouts(slice::from_ref(&made.set))
                .push_constant_ranges(ranges);
            made.layout = device.create_pipeline_layout(&info, None)?;
        }
        Ok(made)
    }

    fn device(&self) -> &ash::Device {
        self.vulkan.device()
    }

    /// The pipeline layout: one descriptor set and the push constants.
    pub fn handle(&self) -> vk::PipelineLayout {
        self.layout
    }

    /// A descriptor set with these resources, one per binding. They outlive the set.
    ///
    /// # Errors
    /// If all sets are in use.
    pub fn bind(&self, resources: &[Resource]) -> Result<vk::DescriptorSet> {
        let info = vk::DescriptorSetAllocateInfo::default()
            .descriptor_pool(self.descriptors)
            .set_layouts(slice::from_ref(&self.set));
        // SAFETY: the pool is alive and used by this thread alone.
        let set = unsafe { self.device().allocate_descriptor_sets(&info) }
            .context("too many descriptor sets at once")?[0];
        let bindings = (0..).zip(self.bindings.iter().zip(resources));
        let writes: Vec<_> = bindings
            .map(|(binding, (&ty, resource))| {
                let write = vk::WriteDescriptorSet::default().dst_set(set).dst_binding(binding);
                match resource {
                    Resource::Buffer(info) => write.buffer_info(slice::from_ref(info)),
                    Resource::Image(info) => write.image_info(slice::from_ref(info)),
                }
                .descriptor_type(ty)
            })
            .collect();
        // SAFETY: the set is new and has these bindings; the callers pass live resources of their types.
        unsafe { self.device().update_descriptor_sets(&writes, &[]) };
        Ok(set)
    }

    /// Binds the first `bytes` bytes of a storage buffer at binding 0, window by window, and all of `other` at
    /// binding 1.
    ///
    /// # Errors
    /// If all sets are in use.
    pub fn bind_windows(
        &self,
        buffer: vk::Buffer,
        bytes: u64,
        other: Option<vk::Buffer>,
    ) -> Result<Bound> {
        let (vulkan, physical) = (&self.vulkan, self.vulkan.physical_device());
        // SAFETY: a valid instance and physical device.
        let properties = unsafe { vulkan.instance().get_physical_device_properties(physical) };
        let bind = |window: Window| {
            let Window { offset, bytes: range } = window;
            let info = vk::DescriptorBufferInfo { buffer, offset, range };
            let resources = [Some(Resource::Buffer(info)), other.map(Resource::whole)];
            let resources: Vec<_> = resources.into_iter().flatten().collect();
            Ok((window, self.bind(&resources)?))
        };
        let windows = windows(bytes, u64::from(properties.limits.max_storage_buffer_range));
        Ok(Bound { sets: windows.into_iter().map(bind).collect::<Result<_>>()? })
    }

    /// Frees descriptor sets, which no submitted work may use any more.
    pub fn free(&self, sets: &[vk::DescriptorSet]) {
        if !sets.is_empty() {
            // SAFETY: allocated from this pool, which allows it; not in use, as the caller promises. The call never
            // fails.
            let _ = unsafe { self.device().free_descriptor_sets(self.descriptors, sets) };
        }
    }

    /// Creates the compute pipeline of `spirv`, which has these bindings and push constants.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn compute(&mut self, spirv: &[u8]) -> Result<vk::Pipeline> {
        let module = ShaderModule::new(&self.vulkan, spirv)?;
        let stage = module.stage(vk::ShaderStageFlags::COMPUTE);
        let info = vk::ComputePipelineCreateInfo::default().stage(stage).layout(self.layout);
        let none = vk::PipelineCache::null();
        // SAFETY: the layout has the shader's bindings and push constants, as the caller promises.
        let made = unsafe { self.device().create_compute_pipelines(none, &[info], None) };
        let pipeline = made.map_err(|(_, result)| result)?[0];
        self.pipelines.push(pipeline);
        Ok(pipeline)
    }

    /// Creates a graphics pipeline, whose shaders have these bindings and push constants.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn graphics(&mut self, desc: &Graphics<'_>) -> Result<vk::Pipeline> {
        let vertex = ShaderModule::new(&self.vulkan, desc.vertex)?;
        let fragment = ShaderModule::new(&self.vulkan, desc.fragment)?;
        let stages = [
            vertex.stage(vk::ShaderStageFlags::VERTEX),
            fragment.stage(vk::ShaderStageFlags::FRAGMENT),
        ];
        let assembly = vk::PipelineInputAssemblyStateCreateInfo::default()
            .topology(vk::PrimitiveTopology::TRIANGLE_LIST);
        let viewport =
            vk::PipelineViewportStateCreateInfo::default().viewport_count(1).scissor_count(1);
        let raster = vk::PipelineRasterizationStateCreateInfo::default()
            .polygon_mode(vk::PolygonMode::FILL)
            .cull_mode(vk::CullModeFlags::NONE)
            .line_width(1.0);
        let multisample = vk::PipelineMultisampleStateCreateInfo::default()
            .rasterization_samples(vk::SampleCountFlags::from_raw(desc.samples))
            .sample_mask(slice::from_ref(&desc.sample_mask));
        let depth = vk::PipelineDepthStencilStateCreateInfo::default()
            .depth_test_enable(desc.depth.is_some())
            .depth_write_enable(desc.depth.is_some())
            .depth_compare_op(desc.depth.unwrap_or(vk::CompareOp::ALWAYS));
        let blend =
            vk::PipelineColorBlendStateCreateInfo::default().attachments(desc.colour.as_slice());
        let dynamic = vk::PipelineDynamicStateCreateInfo::default()
            .dynamic_states(&[vk::DynamicState::VIEWPORT, vk::DynamicState::SCISSOR]);
        let info = vk::GraphicsPipelineCreateInfo::default()
            .stages(&stages)
            .vertex_input_state(&desc.input)
            .input_assembly_state(&assembly)
            .viewport_state(&viewport)
            .rasterization_state(&raster)
            .multisample_state(&multisample)
            .depth_stencil_state(&depth)
            .color_blend_state(&blend)
            .dynamic_state(&dynamic)
            .layout(self.layout)
            .render_pass(desc.render_pass);
        let none = vk::PipelineCache::null();
        // SAFETY: the modules are valid SPIR-V, their interface is that of the layout and of the vertex input, and
        // the render pass has the attachments that they write.
        let made = unsafe { self.device().create_graphics_pipelines(none, &[info], None) };
        let pipeline = made.map_err(|(_, result)| result)?[0];
        self.pipelines.push(pipeline);
        Ok(pipeline)
    }

    /// Records push constants.
    pub fn push(&self, command: vk::CommandBuffer, constants: &[u8]) {
        // SAFETY: the command buffer is being recorded (the caller's), and the layout has this range.
        unsafe {
            self.device().cmd_push_constants(command, self.layout, self.stages, 0, constants);
        }
    }

    /// Records `groups` work groups of a compute pipeline.
    pub fn dispatch(
        &self,
        command: vk::CommandBuffer,
        pipeline: vk::Pipeline,
        set: vk::DescriptorSet,
        constants: &[u8],
        groups: (u32, u32),
    ) {
        let (device, point) = (self.device(), vk::PipelineBindPoint::COMPUTE);
        self.push(command, constants);
        // SAFETY: the command buffer is being recorded, outside a render pass (the caller's), and everything bound
        // is alive as long as the layout and the resources, which the callers keep.
        unsafe {
            device.cmd_bind_pipeline(command, point, pipeline);
            device.cmd_bind_descriptor_sets(command, point, self.layout, 0, &[set], &[]);
            device.cmd_dispatch(command, groups.0, groups.1, 1);
        }
    }
}

impl fmt::Debug for ShaderLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShaderLayout").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl Drop for ShaderLayout {
    fn drop(&mut self) {
        let device = self.vulkan.device();
        // SAFETY: all owned here alone, and null if never created; the code that submits work with them waits before
        // dropping them.
        unsafe {
            for pipeline in self.pipelines.drain(..) {
                device.destroy_pipeline(pipeline, None);
            }
            device.destroy_descriptor_pool(self.descriptors, None);
            device.destroy_pipeline_layout(self.layout, None);
            device.destroy_descriptor_set_layout(self.set, None);
        }
    }
}

/// A shader module, needed until the pipelines are created.
struct ShaderModule<'a> {
    vulkan: &'a Vulkan,
    handle: vk::ShaderModule,
}

impl<'a> ShaderModule<'a> {
    /// Loads `spirv`, one of the files in `shaders/`.
    fn new(vulkan: &'a Vulkan, spirv: &[u8]) -> Result<Self> {
        let code = ash::util::read_spv(&mut std::io::Cursor::new(spirv)).context("SPIR-V")?;
        let info = vk::ShaderModuleCreateInfo::default().code(&code);
        // SAFETY: valid SPIR-V: it was checked when it was compiled.
        let handle = unsafe { vulkan.device().create_shader_module(&info, None) }?;
        Ok(Self { vulkan, handle })
    }

    /// The module as a stage of a pipeline.
    fn stage(&self, stage: vk::ShaderStageFlags) -> vk::PipelineShaderStageCreateInfo<'static> {
        vk::PipelineShaderStageCreateInfo::default().stage(stage).module(self.handle).name(c"main")
    }
}

impl Drop for ShaderModule<'_> {
    fn drop(&mut self) {
        // SAFETY: owned here alone, and not needed once the pipelines are made.
        unsafe { self.vulkan.device().destroy_shader_module(self.handle, None) };
    }
}
