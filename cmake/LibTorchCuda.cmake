# LibTorch with CUDA, and the NCCL that it brings: a process must hold one NCCL only, and one CUDA runtime.

set(nvidia "${LONGNET_LIBTORCH}/../nvidia")

# nvcc: the one that is named or on the PATH, else the one that launch/scripts/setup.sh --cuda has put beside LibTorch.
find_program(LONGNET_NVCC nvcc HINTS /usr/local/cuda/bin "${nvidia}/cu13/bin")
if(NOT CMAKE_CUDA_COMPILER AND NOT LONGNET_NVCC)
  message(FATAL_ERROR "LONGNET_CUDA is ON, but there is no nvcc. Run ./launch/scripts/setup.sh --cuda, install the CUDA Toolkit 13, "
                      "or name the compiler with -DCMAKE_CUDA_COMPILER=PATH.")
endif()
if(NOT CMAKE_CUDA_COMPILER)
  set(CMAKE_CUDA_COMPILER "${LONGNET_NVCC}")
endif()
# LibTorch's configuration looks for the toolkit in ways of its own; it is where the compiler is.
get_filename_component(toolkit "${CMAKE_CUDA_COMPILER}/../.." ABSOLUTE)
if(EXISTS "${toolkit}/include/cuda_runtime.h")
  set(CUDAToolkit_ROOT "${toolkit}")
  set(CUDA_TOOLKIT_ROOT_DIR "${toolkit}")
endif()

if(NOT EXISTS "${LONGNET_LIBTORCH}/lib/libtorch_cuda.so" OR NOT EXISTS "${nvidia}/cu13/lib/libcublas.so.13")
  message(FATAL_ERROR "LONGNET_CUDA is ON, but the LibTorch in ${LONGNET_LIBTORCH} was installed without its CUDA libraries. "
                      "Run ./launch/scripts/setup.sh --cuda, which installs the full wheel.")
endif()

set(CMAKE_CUDA_STANDARD 17)                # nvcc 13.0 with CMake 3.25
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
set(CMAKE_CUDA_ARCHITECTURES OFF)          # LibTorch's configuration sets the flags from its own list
if(NOT DEFINED TORCH_CUDA_ARCH_LIST)
  set(TORCH_CUDA_ARCH_LIST "8.0;9.0")
endif()
enable_language(CUDA)
find_package(CUDAToolkit 13.0 REQUIRED)
find_package(Torch REQUIRED PATHS "${LONGNET_LIBTORCH}/share/cmake/Torch" NO_DEFAULT_PATH)
target_link_libraries(longnet_torch INTERFACE ${TORCH_LIBRARIES} CUDA::cudart)

find_path(LONGNET_NCCL_INCLUDE nccl.h PATHS "${nvidia}/nccl/include" NO_DEFAULT_PATH)
find_file(LONGNET_NCCL_LIBRARY libnccl.so.2 PATHS "${nvidia}/nccl/lib" NO_DEFAULT_PATH)
if(NOT LONGNET_NCCL_INCLUDE OR NOT LONGNET_NCCL_LIBRARY)
  message(FATAL_ERROR "LONGNET_CUDA is ON, but LibTorch's NCCL is not in ${nvidia}/nccl. Run ./launch/scripts/setup.sh --cuda, or name "
                      "-DLONGNET_NCCL_INCLUDE=DIR and -DLONGNET_NCCL_LIBRARY=FILE of the NCCL that this LibTorch loads.")
endif()
add_library(longnet_nccl SHARED IMPORTED)
set_target_properties(longnet_nccl PROPERTIES
  IMPORTED_LOCATION "${LONGNET_NCCL_LIBRARY}"
  INTERFACE_INCLUDE_DIRECTORIES "${LONGNET_NCCL_INCLUDE};${CUDAToolkit_INCLUDE_DIRS}")

# The header and the library must be of one version. NCCL answers that without a GPU.
try_run(nccl_ran nccl_compiled "${CMAKE_BINARY_DIR}/nccl_version" SOURCES "${CMAKE_CURRENT_LIST_DIR}/nccl_version.cpp"
        LINK_LIBRARIES longnet_nccl RUN_OUTPUT_VARIABLE nccl_versions COMPILE_OUTPUT_VARIABLE nccl_compiler_output)
if(NOT nccl_compiled)
  message(FATAL_ERROR "NCCL in ${LONGNET_NCCL_INCLUDE} cannot be compiled with:\n${nccl_compiler_output}")
elseif(NOT nccl_ran EQUAL 0)
  message(FATAL_ERROR "NCCL's header and library differ: ${nccl_versions}. Name those of one version with "
                      "-DLONGNET_NCCL_INCLUDE=DIR and -DLONGNET_NCCL_LIBRARY=FILE.")
endif()
message(STATUS "longnet: NCCL ${nccl_versions}")

set(CMAKE_BUILD_RPATH "${LONGNET_LIBTORCH}/lib;${nvidia}/nccl/lib;${nvidia}/cu13/lib")
foreach(folder nccl/lib cu13/lib cudnn/lib cusparselt/lib nvshmem/lib)
  add_link_options("-Wl,-rpath-link,${nvidia}/${folder}")
endforeach()
