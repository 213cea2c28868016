# LibTorch without CUDA. The wheel's own TorchConfig.cmake asks for the CUDA toolkit, but a CPU build needs the headers and two
# libraries only.

add_library(torch::c10 SHARED IMPORTED)
set_target_properties(torch::c10 PROPERTIES IMPORTED_LOCATION "${LONGNET_LIBTORCH}/lib/libc10.so")

add_library(torch::cpu SHARED IMPORTED)
set_target_properties(torch::cpu PROPERTIES
  IMPORTED_LOCATION "${LONGNET_LIBTORCH}/lib/libtorch_cpu.so"
  INTERFACE_INCLUDE_DIRECTORIES
    "${LONGNET_LIBTORCH}/include;${LONGNET_LIBTORCH}/include/torch/csrc/api/include"
  INTERFACE_LINK_LIBRARIES torch::c10)
target_link_libraries(longnet_torch INTERFACE torch::cpu)

# libtorch_cpu.so finds its own dependencies by a relative path; the linker has to be told where they are.
set(CMAKE_BUILD_RPATH "${LONGNET_LIBTORCH}/lib")
add_link_options("-Wl,-rpath-link,${LONGNET_LIBTORCH}/../nvidia/cu13/lib")
