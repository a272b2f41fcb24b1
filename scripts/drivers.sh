#!/usr/bin/env bash
# Installs what the examples and the tests need: the Vulkan loader, EGL and OpenGL, a driver for each (Mesa's lavapipe and
# llvmpipe, which need no GPU, unless NVIDIA's are installed), the Khronos validation layer, and a C linker.
#
#   scripts/drivers.sh           Debian, Ubuntu: install what is missing (with sudo if not root); if nothing is, do
#                                nothing. Other systems: name the packages
#   scripts/drivers.sh --check   install nothing; exit status 1 if something is missing
#
# An NVIDIA driver is never touched: if it is complete, no other driver is installed, and an installation that would
# remove any package, or add or upgrade one of NVIDIA's, is refused.
set -euo pipefail

# ldconfig is in sbin, which is not on every user's PATH.
PATH=$PATH:/usr/sbin:/sbin

say() {
    printf 'drivers.sh: %s\n' "$*"
}

die() {
    printf 'drivers.sh: %s\n' "$*" >&2
    exit 1
}

# --- what is installed -------------------------------------------------------------------------------------------------

machine=$(uname -m)
library_folders=(/usr/lib/"$machine"-linux-gnu /usr/lib64 /usr/lib /usr/local/lib)
share_folders=(/etc /usr/share /usr/local/share /usr/local/etc)
vulkan_drivers=("${share_folders[@]/%//vulkan/icd.d}")
vulkan_layers=("${share_folders[@]/%//vulkan/explicit_layer.d}" "${HOME:-/root}/.local/share/vulkan/explicit_layer.d")
egl_drivers=("${share_folders[@]/%//glvnd/egl_vendor.d}")

# ldconfig's label for this machine's libraries: it also lists 32-bit ones, which a 64-bit program can't load.
case $machine in
    x86_64) kind=x86-64 ;;
    aarch64) kind=AArch64 ;;
    *) kind='' ;;
esac

# Does the loader find this library?
library() {
    local folder
    grep -qF "$1 (libc6${kind:+,$kind}" <<<"$loadable" && return
    for folder in "${library_folders[@]}"; do
        [[ -e $folder/$1 ]] && return
    done
    return 1
}

# Is there a file of this pattern in one of the folders that follow?
file_in() {
    local pattern=$1 folder found
    shift
    for folder in "$@"; do
        for found in "$folder"/$pattern; do
            [[ -e $found ]] && return
        done
    done
    return 1
}

nvidia_vulkan() {
    library libGLX_nvidia.so.0 || return
    [[ ${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-} == *nvidia* ]] || file_in 'nvidia_icd*.json' "${vulkan_drivers[@]}"
}

nvidia_egl() {
    library libEGL_nvidia.so.0 || return
    [[ ${__EGL_VENDOR_LIBRARY_FILENAMES:-} == *nvidia* ]] || file_in '*nvidia*.json' "${egl_drivers[@]}"
}

vulkan_driver() {
    nvidia_vulkan || file_in 'lvp_icd*.json' "${vulkan_drivers[@]}"
}

egl_driver() {
    # With glvnd, Mesa's EGL is a vendor library; without it (Alpine), it is libEGL itself.
    nvidia_egl || library libEGL_mesa.so.0 || { library libEGL.so.1 && ! library libGLdispatch.so.0; }
}

opengl_driver() {
    # Since Mesa 24.2 one library holds all of Mesa's drivers; before, there was a file for each.
    nvidia_egl || file_in 'libgallium-*.so' "${library_folders[@]}" ||
        file_in swrast_dri.so "${library_folders[@]/%//dri}"
}

validation_layer() {
    file_in VkLayer_khronos_validation.json "${vulkan_layers[@]}" ${VK_LAYER_PATH:+"$VK_LAYER_PATH"}
}

linker() {
    # A compiler without the C library's development files cannot link; it then has no path to this file.
    [[ $(cc -print-file-name=crt1.o 2>/dev/null) == /* ]]
}

missing=()  # names for people
packages=() # Debian's and Ubuntu's names

# want NAME PACKAGES TEST...: PACKAGES is one word or several.
want() {
    local name=$1 names=$2
    shift 2
    "$@" && return
    missing+=("$name")
    read -ra names <<<"$names"
    packages+=("${names[@]}")
}

survey() {
    loadable=$(ldconfig -p 2>/dev/null) || loadable=''
    missing=()
    packages=()
    want "the Vulkan loader" libvulkan1 library libvulkan.so.1
    want "a Vulkan driver" mesa-vulkan-drivers vulkan_driver
    want "EGL" libegl1 library libEGL.so.1
    want "an EGL driver" libegl-mesa0 egl_driver
    want "an OpenGL driver" libgl1-mesa-dri opengl_driver
    want "OpenGL" libgl1 library libGL.so.1
    want "OpenGL ES" libgles2 library libGLESv2.so.2
    # A library of glvnd, which does not exist if Mesa is built without glvnd (Alpine).
    if command -v apt-get >/dev/null || library libGLdispatch.so.0; then
        want "OpenGL without GLX" libopengl0 library libOpenGL.so.0
    fi
    want "the Vulkan validation layer" vulkan-validationlayers validation_layer
    want "a C linker" "gcc libc6-dev" linker
}

# --- Debian and Ubuntu ----------------------------------------------------------------------------------------------

as_root=()
apt() {
    ${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l LC_ALL=C \
        apt-get -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 "$@"
}

# Simulates the installation, which needs neither root nor a lock.
plan() {
    LC_ALL=C apt-get --simulate -o Debug::NoLocking=true install --no-install-recommends "${packages[@]}" 2>&1
}

update() {
    local try
    say "refreshing apt's package lists"
    # apt does not wait for the lock of its package lists.
    for try in 1 2 3 4 5; do
        apt update -qq && return
        ((try < 5)) && sleep $((try * 5))
    done
    die "apt-get update failed; see the messages above"
}

install_packages() {
    local planned touched updated=no
    # A fresh image has no package lists.
    if ! planned=$(plan); then
        update
        updated=yes
        planned=$(plan) || die "apt does not offer all of ${packages[*]} (no network? on Ubuntu, no universe component?):" \
            $'\n'"$planned"
    fi
    touched=$(awk '$1 == "Remv" || ($1 == "Inst" && $2 ~ /nvidia|^libcuda|^cuda-/) { print $2 }' <<<"$planned")
    [[ -z $touched ]] || die "refused: apt would change or remove ${touched//$'\n'/, }; install ${packages[*]} by hand"
    say "installing ${packages[*]}"
    apt install -y -qq --no-install-recommends --no-remove "${packages[@]}" && return
    # Old package lists name files that the mirror no longer has.
    [[ $updated == no ]] || die "apt-get install failed; see the messages above"
    update
    apt install -y -qq --no-install-recommends --no-remove "${packages[@]}" ||
        die "apt-get install failed; see the messages above"
}

become_root() {
    ((EUID == 0)) && return
    local by_hand="as root run: apt-get install --no-install-recommends ${packages[*]}"
    command -v sudo >/dev/null || die "not root, and there is no sudo; $by_hand"
    sudo true || die "not root, and sudo refuses; $by_hand"
    as_root=(sudo)
}

# --- other systems -----------------------------------------------------------------------------------------------------

name_packages() {
    local id="" command
    if [[ -r /etc/os-release ]]; then
        # shellcheck source=/dev/null
        id=$(. /etc/os-release && printf '%s %s' "${ID:-}" "${ID_LIKE:-}")
    fi
    case " $id " in
        *" fedora "* | *" rhel "*)
            command="dnf install vulkan-loader mesa-vulkan-drivers mesa-dri-drivers mesa-libEGL libglvnd-egl libglvnd-glx"
            command+=" libglvnd-gles libglvnd-opengl vulkan-validation-layers gcc"
            ;;
        *" arch "*)
            command="pacman -S --needed vulkan-icd-loader vulkan-swrast mesa libglvnd vulkan-validation-layers gcc"
            ;;
        *suse*)
            command="zypper install libvulkan1 libvulkan_lvp Mesa-dri Mesa-libEGL1 Mesa-libGL1 libglvnd"
            command+=" vulkan-validationlayers gcc"
            ;;
        *" alpine "*)
            command="apk add vulkan-loader mesa-vulkan-swrast mesa-dri-gallium mesa-egl mesa-gl mesa-gles"
            command+=" vulkan-validation-layers gcc musl-dev"
            ;;
        *)
            command="your package manager to install the Vulkan loader, Mesa with lavapipe and llvmpipe, EGL, OpenGL,"
            command+=" the Khronos validation layer and gcc"
            ;;
    esac
    say "this script installs on Debian and Ubuntu only; here, use: $command"
}

# --- NVIDIA ---------------------------------------------------------------------------------------------------------

# Containers often get the driver without the files that the loaders look for.
nvidia_hints() {
    if library libGLX_nvidia.so.0 && ! nvidia_vulkan; then
        say "note: an NVIDIA driver is here, but the Vulkan loader finds no nvidia_icd.json; set VK_DRIVER_FILES to it"
    fi
    if library libEGL_nvidia.so.0 && ! nvidia_egl; then
        say "note: an NVIDIA driver is here, but EGL finds no 10_nvidia.json; set __EGL_VENDOR_LIBRARY_FILENAMES to it"
    fi
}

# --- main -----------------------------------------------------------------------------------------------------------

case $#:${1:-} in
    0:) check_only=no ;;
    1:--check) check_only=yes ;;
    *) die "usage: scripts/drivers.sh [--check]" ;;
esac
[[ $(uname -s) == Linux ]] || die "gpu-interop is for Linux; this is $(uname -s)"

join() {
    local joined
    printf -v joined ', %s' "$@"
    printf '%s' "${joined:2}"
}

survey
if ((${#missing[@]} == 0)); then
    say "nothing to do: drivers, loaders, validation layer and linker are all here"
    nvidia_hints
    exit 0
fi
say "missing: $(join "${missing[@]}")"

if ! command -v apt-get >/dev/null; then
    name_packages
    exit 1
fi
if [[ $check_only == yes ]]; then
    say "scripts/drivers.sh installs: ${packages[*]}"
    exit 1
fi
become_root
install_packages
survey
((${#missing[@]} == 0)) || die "still missing after the installation: $(join "${missing[@]}")"
say "done: drivers, loaders, validation layer and linker are all here"
nvidia_hints
