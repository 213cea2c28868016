# Settings that every target of the project shares, and the functions that make the targets.

set(warnings -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror)

add_library(longnet_settings INTERFACE)
target_include_directories(longnet_settings INTERFACE "${CMAKE_CURRENT_SOURCE_DIR}")
target_compile_options(longnet_settings INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${warnings}>")
if(LONGNET_SANITIZE)
  target_compile_options(longnet_settings INTERFACE "-fsanitize=${LONGNET_SANITIZE}" -fno-omit-frame-pointer)
  target_link_options(longnet_settings INTERFACE "-fsanitize=${LONGNET_SANITIZE}")
endif()

# longnet_library(NAME SOURCES...): a static library. LibTorch's headers cost 20 s a file, so all libraries share one
# precompiled header, which longnet_core makes.
function(longnet_library name)
  add_library(${name} STATIC ${ARGN})
  target_link_libraries(${name} PUBLIC longnet_settings)
endfunction()

# longnet_backend(NAME DEVICE_SOURCES ABSENT_SOURCE): adds the sources of a CUDA back end to a library or, in a build without
# CUDA, the one file that stands in for them and refuses.
function(longnet_backend name)
  cmake_parse_arguments(arg "" "ABSENT" "SOURCES" ${ARGN})
  if(LONGNET_WITH_CUDA)
    target_sources(${name} PRIVATE ${arg_SOURCES})
    foreach(source ${arg_SOURCES})
      if(source MATCHES "\\.cu$")  # without -Wpedantic: nvcc's own code has line directives
        set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
          "--Werror=all-warnings;-Xcompiler=-Wall,-Wextra,-Wshadow,-Werror;-Xptxas=--warn-on-spills")
      endif()
    endforeach()
  else()
    target_sources(${name} PRIVATE ${arg_ABSENT})
  endif()
endfunction()
