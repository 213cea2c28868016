# The imported target torch::cpu: LibTorch as the PyPI wheel ships it, without CUDA.
#
# The wheel's own TorchConfig.cmake asks for the CUDA toolkit. A CPU build needs the headers and two libraries only.
# launch/setup.sh installs the wheel into third_party/libtorch.

set(LONGNET_LIBTORCH "${CMAKE_CURRENT_SOURCE_DIR}/third_party/libtorch/torch" CACHE PATH
    "Folder of LibTorch: holds include/ and lib/")

if(NOT EXISTS "${LONGNET_LIBTORCH}/lib/libtorch_cpu.so")
  message(FATAL_ERROR
    "LibTorch was not found in ${LONGNET_LIBTORCH}. Run ./launch/setup.sh, or name its folder with -DLONGNET_LIBTORCH=DIR "
    "(the folder `torch` of the installed wheel torch==2.11.0).")
endif()

add_library(torch::c10 SHARED IMPORTED)
set_target_properties(torch::c10 PROPERTIES IMPORTED_LOCATION "${LONGNET_LIBTORCH}/lib/libc10.so")

add_library(torch::cpu SHARED IMPORTED)
set_target_properties(torch::cpu PROPERTIES
  IMPORTED_LOCATION "${LONGNET_LIBTORCH}/lib/libtorch_cpu.so"
  INTERFACE_INCLUDE_DIRECTORIES
    "${LONGNET_LIBTORCH}/include;${LONGNET_LIBTORCH}/include/torch/csrc/api/include"
  INTERFACE_LINK_LIBRARIES torch::c10)

# libtorch_cpu.so finds its own dependencies by a relative path; the linker has to be told where they are.
set(CMAKE_BUILD_RPATH "${LONGNET_LIBTORCH}/lib")
add_link_options("-Wl,-rpath-link,${LONGNET_LIBTORCH}/../nvidia/cu13/lib")
