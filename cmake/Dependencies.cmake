# Well-kept libraries, from the distribution's packages. `./dev setup` installs them.
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(CLI11 REQUIRED)

# oneDNN 2.6 (Debian) or 3.x. Found by hand: Debian's package configuration demands OpenCL's development files, which we do not use.
# DNNL_ROOT may point at another installation.
find_path(DNNL_INCLUDE_DIR dnnl.hpp HINTS ${DNNL_ROOT}/include REQUIRED)
find_library(DNNL_LIBRARY dnnl HINTS ${DNNL_ROOT}/lib REQUIRED)
add_library(dnnl::dnnl UNKNOWN IMPORTED)
set_target_properties(dnnl::dnnl PROPERTIES IMPORTED_LOCATION ${DNNL_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${DNNL_INCLUDE_DIR})

find_package(PkgConfig REQUIRED)
foreach(pair "pcre2=libpcre2-8" "utf8proc=libutf8proc" "xxhash=libxxhash")
  string(REPLACE "=" ";" pair ${pair})
  list(GET pair 0 name)
  list(GET pair 1 module)
  pkg_check_modules(${name} REQUIRED IMPORTED_TARGET ${module})
  add_library(${name}::${name} ALIAS PkgConfig::${name})
endforeach()
