# LibTorch, as the PyPI wheel torch==2.11.0 ships it, with CUDA or without. Makes the target longnet_torch and sets
# LONGNET_WITH_CUDA.
#
#   LONGNET_CUDA=AUTO   with CUDA where nvcc and a visible GPU are found
#   LONGNET_CUDA=ON     with CUDA; whatever is missing stops the configuration
#   LONGNET_CUDA=OFF    without

set(LONGNET_CUDA AUTO CACHE STRING "Build for CUDA and NCCL: AUTO, ON or OFF")
set_property(CACHE LONGNET_CUDA PROPERTY STRINGS AUTO ON OFF)

set(LONGNET_WITH_CUDA OFF)
if(LONGNET_CUDA STREQUAL "AUTO")
  find_program(LONGNET_NVCC nvcc HINTS /usr/local/cuda/bin)
  execute_process(COMMAND nvidia-smi --list-gpus OUTPUT_VARIABLE gpus ERROR_QUIET)
  if(LONGNET_NVCC AND gpus MATCHES "GPU 0")
    set(LONGNET_WITH_CUDA ON)
  endif()
elseif(LONGNET_CUDA)
  set(LONGNET_WITH_CUDA ON)
endif()

add_library(longnet_torch INTERFACE)
# The wheel's libraries export a C++ library's file system of their own, of which a part is missing (libtorch.so: remove_all calls a
# null pointer). Whoever comes first on the command line is asked first when the program runs.
target_link_libraries(longnet_torch INTERFACE "-Wl,--push-state,--no-as-needed" stdc++ "-Wl,--pop-state")
if(LONGNET_WITH_CUDA)
  set(wheel "third_party/libtorch-cuda")
  set(setup "./launch/scripts/setup.sh --cuda")
else()
  set(wheel "third_party/libtorch")
  set(setup "./launch/scripts/setup.sh")
endif()
set(LONGNET_LIBTORCH "${CMAKE_CURRENT_SOURCE_DIR}/${wheel}/torch" CACHE PATH "Folder of LibTorch: holds include/ and lib/")
if(NOT EXISTS "${LONGNET_LIBTORCH}/lib/libtorch_cpu.so")
  message(FATAL_ERROR
    "LibTorch was not found in ${LONGNET_LIBTORCH}. Run ${setup}, or name its folder with -DLONGNET_LIBTORCH=DIR "
    "(the folder `torch` of the installed wheel torch==2.11.0).")
endif()

if(LONGNET_WITH_CUDA)
  include(LibTorchCuda)
else()
  include(LibTorchCpu)
endif()
message(STATUS "longnet: CUDA is ${LONGNET_WITH_CUDA} (LONGNET_CUDA=${LONGNET_CUDA})")
